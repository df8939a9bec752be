"""A claim: a robust accuracy that somebody states, with what else they say about it."""

from __future__ import annotations

import math
import re
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from flatguard.errors import UsageError

_LARGEST_ROUNDING = 0.005
"""A claim of 50% is not read as 45% to 55%."""
_SHARE = re.compile(r"(\d+\.?\d*|\.\d+)(\s*%)?")


class ClaimedShare(BaseModel):
    """A share as somebody wrote it.

    Attributes:
        value: in [0, 1].
        rounding: half a unit of its last digit; the share lies within it of `value`.
        written: as it was typed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    value: Annotated[float, Field(ge=0, le=1)]
    rounding: Annotated[float, Field(ge=0, le=_LARGEST_ROUNDING)]
    written: str

    @property
    def lowest(self) -> float:
        """The smallest share that is written so."""
        return max(0.0, self.value - self.rounding)

    @property
    def highest(self) -> float:
        """The largest share that is written so."""
        return min(1.0, self.value + self.rounding)

    def counts(self, images: int) -> tuple[int, int] | None:
        """The smallest and the largest number of these images that is this share; None if none."""
        low = math.ceil(self.lowest * images - 1e-6)
        high = math.floor(self.highest * images + 1e-6)
        return (low, high) if low <= high else None

    def __str__(self) -> str:
        digits = max(1, -math.floor(math.log10(200 * self.rounding)) if self.rounding else 1)
        return f"{self.value:.{min(digits, 4)}%}"


class Claim(BaseModel):
    """What is claimed for the norm and radius of a run.

    Attributes:
        robust: the robust accuracy.
        clean: the clean accuracy; None if nothing is said about it.
        images: on how many images; None if unknown.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    robust: ClaimedShare
    clean: ClaimedShare | None = None
    images: Annotated[int, Field(ge=1, lt=1 << 53)] | None = None


def claim_of(
    robust: str | float, clean: str | float | None = None, images: int | None = None
) -> Claim:
    """A claim from what was typed.

    Raises:
        UsageError: not a share, a robust accuracy above the clean one, or no number of the images
            that is this share.
    """
    made = share_of(robust, "--claim")
    natural = None if clean is None else share_of(clean, "--claim-clean")
    if natural is not None and made.lowest > natural.highest:
        raise UsageError(
            f"--claim {robust} is above --claim-clean {clean}: a sample is robust only where its "
            "clean image is classified correctly"
        )
    if images is not None and images < 1:
        raise UsageError(f"--claim-images: expected a number of images, got {images}")
    for option, share in (("--claim", made), ("--claim-clean", natural)):
        if images is not None and share is not None and share.counts(images) is None:
            below = math.floor(share.value * images)
            raise UsageError(
                f"{option} {share.written}: no number of {images} images is that share; the "
                f"nearest are {below / images:.2%} and {(below + 1) / images:.2%}"
            )
    return Claim(robust=made, clean=natural, images=images)


def share_of(typed: str | float, option: str) -> ClaimedShare:
    """`0.905` or `90.5%` as a share. A number above 1 needs the sign: 1.5 may be meant as 150%.

    Raises:
        UsageError: it is neither.
    """
    text = str(typed).strip()
    found = _SHARE.fullmatch(text)
    if found is None:
        exact = _of_float(typed)
        if exact is None:
            raise UsageError(f"{option}: expected a share such as 0.905 or 90.5%, got {typed!r}")
        text, found = exact, _SHARE.fullmatch(exact)
        assert found is not None, "a float in [0, 1] in plain digits"
    number, percent = found.groups()
    value = float(number) / (100.0 if percent else 1.0)
    if value > 1:
        meant = "a share of images is at most 100%" if percent else f"write {number}% for percent"
        raise UsageError(f"{option}: expected a share from 0 to 1, got {typed}; {meant}")
    digits = len(number.partition(".")[2]) + (2 if percent else 0)
    return ClaimedShare(
        value=value, rounding=min(0.5 * 10.0**-digits, _LARGEST_ROUNDING), written=text
    )


def _of_float(typed: str | float) -> str | None:
    """A float such as 1e-05 in plain digits."""
    if isinstance(typed, str) or not 0 <= typed <= 1:
        return None
    return f"{typed:.10f}"
