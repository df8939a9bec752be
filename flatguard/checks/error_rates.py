r"""How often a decision on a sample of images is wrong.

The images are a random sample of those that the claim is about. With the true overestimate $g$, the
number $X$ of samples of $n$ by which the reported number is too high is binomial, and the decision
passes where $X / n$ is at most the tolerance $t$:

$$P(\text{pass} \mid g) = P(X \le k), \quad k = \max \{ i : i / n \le t \}.$$

What the checks' own attacks miss is not part of it: they measure a lower bound of $g$. Where the
run covers the whole set that the claim is about, nothing is left to chance.
"""

from __future__ import annotations

import math

import numpy as np
from pydantic import BaseModel, ConfigDict

_FACTORS = (0.5, 1.0, 1.4, 2.0, 3.0)
_ROUNDING = 1e-9
MOST_IMAGES = 10**7


class ErrorRate(BaseModel):
    """The chance that a sample passes.

    Attributes:
        overestimate: the true one, as a share of all images.
        passes: the chance that a sample of the run's size passes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    overestimate: float
    passes: float


def within(excess: int, n: int, tolerance: float) -> bool:
    """Whether an overestimate by so many of n samples is accepted."""
    return excess / n <= tolerance


def most_accepted(n: int, tolerance: float) -> int:
    """The largest number of samples that is accepted."""
    most = min(n, math.floor(tolerance * n) + 1)
    return most if within(most, n, tolerance) else most - 1


def chance_of_pass(n: int, tolerance: float, overestimate: float) -> float:
    """That n images pass where the true overestimate is this share."""
    return _at_most(most_accepted(n, tolerance), n, overestimate)


def error_rates(n: int, tolerance: float) -> tuple[ErrorRate, ...]:
    """The chances to pass, from half the tolerance to three times; none where it is 0."""
    gaps = [round(factor * tolerance, 12) for factor in _FACTORS if factor * tolerance < 1]
    return tuple(
        ErrorRate(overestimate=gap, passes=chance_of_pass(n, tolerance, gap))
        for gap in (gaps if tolerance > 0 else ())
    )


def wrong_pass(excess: int, n: int, tolerance: float) -> float:
    r"""The largest chance, over all true overestimates above the tolerance, to see so few.

    It is $P(X \le \text{excess})$ at the tolerance itself: the p-value of the exact one-sided test
    of "the true overestimate is above the tolerance".
    """
    return _at_most(excess, n, tolerance)


def images_needed(share: float, tolerance: float, most: float) -> int | None:
    r"""The smallest sample from which on this share of excess leaves at most that chance.

    From there on every larger one does, too: beyond a bound by Hoeffding's inequality,
    $P(X \le e) \le \exp(-2 n (t - e/n)^2)$, and up to there by trying every size.

    Args:
        share: of the samples by which the number is too high; fractions are rounded up.
        tolerance: above 0.
        most: the chance of a wrong pass that is accepted.

    Returns:
        The number of images; None where the share reaches the tolerance, or is so near to it that
        `MOST_IMAGES` are not enough.
    """
    from scipy.stats import binom

    bound = 1
    while not _is_surely_enough(bound, tolerance - share, most):
        bound *= 2
        if bound > MOST_IMAGES:
            return None
    sizes = np.arange(1, bound + 1)
    excess = np.ceil(share * sizes - _ROUNDING)
    too_few = np.flatnonzero(binom.cdf(excess, sizes, tolerance) > most)
    return int(sizes[too_few[-1]]) + 1 if len(too_few) else 1


def _is_surely_enough(n: int, gap: float, most: float) -> bool:
    left = gap - 1.0 / n
    return left > 0 and 2.0 * n * left**2 >= -math.log(most)


def _at_most(excess: int, n: int, share: float) -> float:
    from scipy.stats import binom

    return float(binom.cdf(excess, n, share))
