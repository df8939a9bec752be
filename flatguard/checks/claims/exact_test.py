r"""Exact tests of "the accuracy is this share" against the number of right answers on some images.

| the claim is about | the number $X$ of $n$ images |
|---|---|
| the same $n$ images | is one of the counts that round to the share; nothing is left to chance |
| $N > n$ images, of which these are a part | is hypergeometric $(N, K, n)$, $K = cN$ rounded |
| images of the same distribution | is binomial $(n, c)$ (Clopper and Pearson 1934) |

Of the shares that round to what is claimed, the one that fits best counts, so rounding refutes
nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict

from flatguard.checks.claims.claim import ClaimedShare
from flatguard.checks.statistics import CONFIDENCE_LEVEL

LEVEL = (1.0 - CONFIDENCE_LEVEL) / 2
"""The level of each one-sided test; both together are the complement of a 95% interval."""

GAP, MISSED = 0.1, 0.2
"""A sample decides if it would notice an accuracy ten points beside the claim in four of five."""

Kind = Literal["count", "hypergeometric", "binomial"]


class ExactTest(BaseModel):
    """A number of images against a claimed share.

    Attributes:
        kind: which images the claim is about, and so which test.
        images: how many were evaluated.
        right: how many of them count for the share.
        claimed_images: how many the claim is about; None if unknown.
        p_below: the chance of so few or fewer, where the claim is true.
        p_above: the chance of so many or more, where the claim is true.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Kind
    images: int
    right: int
    claimed_images: int | None
    p_below: float
    p_above: float

    @property
    def is_below(self) -> bool:
        """Whether the number is below what is claimed, beyond chance."""
        return self.p_below < LEVEL

    @property
    def is_above(self) -> bool:
        """Whether it is above, beyond chance."""
        return self.p_above < LEVEL

    @property
    def p_value(self) -> float:
        """Two-sided: twice the smaller chance."""
        return min(1.0, 2 * min(self.p_below, self.p_above))

    @property
    def text(self) -> str:
        """The test and the chance of so far a number, in words."""
        if self.kind == "count":
            return f"counted on the claim's own {self.images} images"
        within = f" out of {self.claimed_images:,}" if self.kind == "hypergeometric" else ""
        return (
            f"exact {self.kind} test on {self.images} images{within}: "
            f"p = {min(self.p_below, self.p_above):.2g}"
        )


@dataclass(frozen=True)
class Distribution:
    """The number of right answers on `images` images, where the claim is true.

    Attributes:
        images: how many are evaluated.
        claimed_images: how many the claim is about; None if unknown, or not those.
    """

    images: int
    claimed_images: int | None

    def kind(self, share: ClaimedShare) -> Kind:
        """The test that fits."""
        size = self.claimed_images
        if size is None or size < self.images or share.counts(size) is None:
            return "binomial"
        return "count" if size == self.images else "hypergeometric"

    def at_most(self, right: int, share: float, kind: Kind) -> float:
        """P(X <= right) where this share is true."""
        return self._tail(right, share, kind, "cdf")

    def at_least(self, right: int, share: float, kind: Kind) -> float:
        """P(X >= right) where this share is true."""
        return self._tail(right - 1, share, kind, "sf")

    def _tail(self, right: int, share: float, kind: Kind, which: str) -> float:
        from scipy.stats import binom, hypergeom

        if kind == "binomial":
            return float(getattr(binom, which)(right, self.images, share))
        size = self.claimed_images or self.images
        known = min(size, max(0, round(share * size)))
        return float(getattr(hypergeom, which)(right, size, known, self.images))


def exact_test(
    share: ClaimedShare, right: int, spread: Distribution, doubtful: tuple[int, int] = (0, 0)
) -> ExactTest:
    """Test a number of right answers against a claimed share.

    Args:
        share: what is claimed.
        right: how many of the images count for it.
        spread: how many images, and of which.
        doubtful: how many of `right`, and how many of the others, are decided by less than the
            rounding between two devices; where the images are the claim's own, they count for it.
    """
    kind = spread.kind(share)
    if kind == "count":
        low, high = share.counts(spread.images) or (0, spread.images)
        below = float(right + doubtful[1] >= low)
        above = float(right - doubtful[0] <= high)
    else:
        below = spread.at_most(right, share.lowest, kind)
        above = spread.at_least(right, share.highest, kind)
    return ExactTest(
        kind=kind, images=spread.images, right=right, claimed_images=spread.claimed_images,
        p_below=below, p_above=above,
    )  # fmt: skip


def is_enough(share: ClaimedShare, spread: Distribution) -> bool:
    """Whether so many images would notice that the accuracy is `GAP` below or above the claim.

    The claim passes on the numbers of images that it does not rule out.
    """
    kind = spread.kind(share)
    if kind == "count":
        return True
    lower, higher = share.value - GAP, share.value + GAP
    missed = 0.0
    if lower >= 0:
        least = _first(spread.images, lambda k: spread.at_most(k, share.lowest, kind) >= LEVEL)
        missed = spread.at_least(least, lower, kind)
    if higher <= 1:
        over = _first(spread.images, lambda k: spread.at_least(k, share.highest, kind) < LEVEL)
        missed = max(missed, spread.at_most(over - 1, higher, kind))
    return missed <= MISSED


def _first(images: int, holds: Callable[[int], bool]) -> int:
    """The smallest number of images from which on it holds, by bisection; one more if none."""
    low, high = 0, images + 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return low


def images_needed(share: ClaimedShare) -> int:
    """About how many images notice it: powers of two times 25."""
    images = 25
    while not is_enough(share, Distribution(images, None)):
        images *= 2
    return images
