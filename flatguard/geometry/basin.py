r"""Loss-change robustness, basins and their take-off points, on the points that an attack visited.

A classifier is $(\delta, \epsilon)$-robust at $(x, y)$ if $\ell(\xi) - \ell(x) \le \epsilon$ for
all $\xi$ within $\delta$ of x (Walter et al. 2026, Definition 5; over a set, Definition 6). An
attack visits a few of these $\xi$, so it can refute robustness but never prove it: every number
here is relative to one attack. Several points are columns of equal length, sorted by sample and,
within a sample, by the attack's order.

The paper does not define the basin and its take-off point by a formula. Here the take-off point
is the nearest visited point whose loss rose by more than $\epsilon$, and the basin's width is its
distance: the smallest $\delta$ at which the attack refutes $(\delta, \epsilon)$-robustness.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flatguard.geometry.budget import with_rounding

LOSS_TOLERANCE = 0.01
"""The default ε: a tenth of the loss of a correct prediction with 90% confidence."""

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Visited:
    """The points that an attack visited, as columns of one length m, sorted by sample.

    Attributes:
        sample: `(m,)`, numbers of the samples.
        distance: `(m,)`, from the clean image.
        rise: `(m,)`, the loss there minus the clean image's.
        wrong: `(m,)`, whether the prediction there is not the label.

    Rows whose distance or rise is NaN were not measured, and are ignored.
    """

    sample: NDArray[np.int64]
    distance: Floats
    rise: Floats
    wrong: Bools

    def __post_init__(self) -> None:
        if np.any(np.diff(self.sample) < 0):
            raise ValueError("expected the points sorted by sample")

    @classmethod
    def of_paths(cls, distance: Floats, rise: Floats, wrong: Bools) -> Visited:
        """From `(steps, n)` tables: the model was called on every sample at every step."""
        steps, n = rise.shape
        sample = np.repeat(np.arange(n), steps)
        return cls(sample, distance.T.reshape(-1), rise.T.reshape(-1), wrong.T.reshape(-1))

    def within(self, delta: float) -> Bools:
        """The points that lie within δ."""
        return is_within(self.distance, delta)


def is_within(distance: Floats, delta: float) -> Bools:
    """The distances that are at most δ, up to the rounding of images, as for a budget."""
    inside: Bools = distance <= with_rounding(delta)
    return inside


@dataclass(frozen=True)
class Basins:
    """One basin for each sample, `(n,)` each.

    Attributes:
        sample: the samples' numbers, ascending.
        width: the distance of the take-off point; if there is none, that of the farthest visited
            point, which is then a lower bound.
        left: whether any visited point lies outside the basin.
        step: the number of points visited before the first one outside, in the attack's order; -1
            if there is none.
    """

    sample: NDArray[np.int64]
    width: Floats
    left: Bools
    step: NDArray[np.int64]

    def ranked(self) -> Floats:
        """Widths to rank by."""
        return rank_widths(self.width, self.left)


def rank_widths(width: Floats, left: Bools) -> Floats:
    """Widths to rank by: basins that the path never left are tied, above all others.

    The length of a path that stays inside does not measure the width of its basin.
    """
    return np.where(left, width, float(width.max(initial=0.0)) + 1.0)


def basins(visited: Visited, epsilon: float = LOSS_TOLERANCE) -> Basins:
    r"""The basin of each sample within the loss tolerance $\epsilon$.

    Args:
        visited: the points, at least one of each sample.
        epsilon: at least 0.

    Example:
        >>> path = Visited.of_paths(
        ...     np.array([[0.0], [0.1], [0.2]]), np.array([[0.0], [0.0], [5.0]]),
        ...     np.array([[False], [False], [True]]),
        ... )
        >>> float(basins(path).width[0])
        0.2
    """
    measured = np.isfinite(visited.distance) & ~np.isnan(visited.rise)
    outside = measured & (visited.rise > epsilon)
    sample, first, count = np.unique(visited.sample, return_index=True, return_counts=True)
    if not len(sample):
        return Basins(sample, np.empty(0), np.empty(0, bool), np.empty(0, np.int64))
    far = np.where(measured, visited.distance, 0.0)
    near = np.where(outside, visited.distance, np.inf)
    take_off = np.minimum.reduceat(near, first)
    left = np.isfinite(take_off)
    position = np.arange(len(outside)) - np.repeat(first, count)
    step = np.minimum.reduceat(np.where(outside, position, np.iinfo(np.int64).max), first)
    return Basins(
        sample,
        np.where(left, take_off, np.maximum.reduceat(far, first)),
        left,
        np.where(left, step, -1),
    )


def robust_within(visited: Visited, delta: float, epsilon: float) -> Bools:
    r"""Whether the attack leaves each sample $(\delta, \epsilon)$-robust, `(n,)`.

    False is a refutation; True is not a proof.
    """
    outside = visited.within(delta) & (visited.rise > epsilon)
    first = np.unique(visited.sample, return_index=True)[1]
    return ~np.logical_or.reduceat(outside, first) if len(first) else np.empty(0, bool)


def epsilon_star(visited: Visited, delta: float) -> float | None:
    r"""$\epsilon_*(S; \delta)$ over the visited points: the least rise of any that flips within δ.

    The infimum over the whole ball is at most this. None if nothing flips within δ. A tolerance
    below the true infimum misses no flip (Definition 6).
    """
    flips = visited.within(delta) & visited.wrong & ~np.isnan(visited.rise)
    return float(visited.rise[flips].min()) if flips.any() else None


def least_rise_of_flip(clean_loss: Floats) -> Floats:
    r"""$\log 2 - \ell(x)$: cross-entropy rises by at least this if the prediction flips.

    A wrong prediction has $p_y \le 1/2$, so $\ell(\xi) \ge \log 2$; this bound is tight for any
    number of classes. Lemma 10 of Walter et al. promises a positive rise; for three or more classes
    that holds only if this is positive: x is classified correctly with over 50% confidence.
    """
    return math.log(2.0) - clean_loss


def rise_that_flips(num_classes: int) -> float:
    r"""$\log k$: a rise above it flips the prediction, for cross-entropy and any clean loss.

    Then $p_y < 1/k$ and some other class has more. This is the second half of Lemma 10, whose
    premise, that every wrong prediction has a loss of at least $\log k$, is neither true for
    $k \ge 3$ nor needed.
    """
    return math.log(num_classes)
