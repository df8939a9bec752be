r"""Thresholds from clean scores alone, with a guaranteed rate of false positives.

Split conformal prediction (Vovk et al. 2005; Papadopoulos et al. 2002). Of $n + 1$ exchangeable
scores each rank is as likely as any other, so a new clean score lies below the k-th smallest of n
calibration scores with probability at most $k / (n + 1)$, and above the k-th largest likewise:

- *marginal*: averaged over calibration sets, the rate is at most $\alpha$ if
  $\text{sides} \cdot k \le \alpha (n + 1)$;
- *training-conditional*: given one calibration set, the rate of a continuous score has the
  distribution $\mathrm{Beta}(K, n + 1 - K)$, $K = \text{sides} \cdot k$ (Vovk 2012), so it is at
  most $\alpha$ with probability $1 - \delta$ for every k with
  $I_\alpha(K, n + 1 - K) \ge 1 - \delta$.

Ties only lower the rate, because a score on a threshold is not flagged.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from pydantic import ConfigDict

from flatguard.detection.facts import Facts
from flatguard.errors import UsageError

Side = Literal["two-sided", "low", "high"]


class Bounds(Facts):
    """Scores from `lower` to `upper` pass. NaN never passes.

    Attributes:
        lower: None where only high scores are flagged.
        upper: None where only low scores are flagged.
    """

    model_config = ConfigDict(allow_inf_nan=False)

    lower: float | None = None
    upper: float | None = None

    @property
    def ends(self) -> tuple[float, float]:
        """The interval of scores that pass, with ±inf for None."""
        return (
            -math.inf if self.lower is None else self.lower,
            math.inf if self.upper is None else self.upper,
        )

    def flags(self, scores: np.ndarray) -> np.ndarray:
        """Which scores lie outside, `(n,)` bool."""
        lower, upper = self.ends
        return ~((scores >= lower) & (scores <= upper))


@dataclass(frozen=True)
class FalsePositiveRate:
    """The requested rate of false positives.

    Attributes:
        alpha: the rate, in (0, 1).
        side: which scores are flagged.
        delta: None for the marginal guarantee; otherwise the probability, in (0, 1), that a
            calibration set gives a higher rate.
    """

    alpha: float
    side: Side = "two-sided"
    delta: float | None = None

    def __post_init__(self) -> None:
        for name, value in (("alpha", self.alpha), ("delta", self.delta)):
            if value is not None and not 0.0 < value < 1.0:
                raise UsageError(f"--{name}: expected a share above 0 and below 1, got {value:g}")
        if self.side not in get_args(Side):
            raise UsageError(
                f"--side: expected one of {', '.join(get_args(Side))}, got {self.side!r}"
            )

    def allows(self, rank: int, n: int) -> bool:
        """Whether the rank-th smallest (and largest) of n scores may be the threshold."""
        from scipy.special import betainc

        outside = rank * (2 if self.side == "two-sided" else 1)
        if not 0 < outside <= n:
            return False
        if self.delta is None:
            return outside <= self.alpha * (n + 1) * (1.0 + 1e-12)  # 0.05 · 20 is not above 1
        return bool(betainc(outside, n + 1 - outside, self.alpha) >= 1.0 - self.delta)

    def min_samples(self) -> int:
        """The smallest calibration set for which there is a threshold."""
        return bisect_left(range(1 << 53), True, key=lambda n: self.allows(1, n))

    def rank(self, n: int) -> int:
        """The largest rank that may be the threshold of n scores; 0 if there is none."""
        return bisect_left(range(1, n + 1), True, key=lambda rank: not self.allows(rank, n))


def calibrate(
    scores: np.ndarray, rate: FalsePositiveRate, what: str = "calibration images"
) -> Bounds:
    """Thresholds from clean scores.

    Args:
        scores: `(n,)`, finite, of clean images that nothing was fitted on.
        rate: the requested rate.
        what: what the error message calls these scores.

    Raises:
        UsageError: too few scores, or one that is NaN.
    """
    if np.isnan(scores).any():
        raise UsageError(
            f"{int(np.isnan(scores).sum())} of {len(scores)} {what} have no score: their logits "
            "are not what the model's last linear layer gives; calibrate on others"
        )
    rank = rate.rank(len(scores))
    if rank == 0:
        promise = f"a share of {rate.alpha:g} false positives, {rate.side}"
        if rate.delta is not None:
            promise += f", in all but {rate.delta:g} of calibrations"
        raise UsageError(
            f"{len(scores)} {what} are too few for {promise}: {rate.min_samples()} are needed; "
            "give more, or request a higher rate"
        )
    ordered = np.sort(scores)
    return Bounds(
        lower=None if rate.side == "high" else float(ordered[rank - 1]),
        upper=None if rate.side == "low" else float(ordered[len(scores) - rank]),
    )


def atypicality(scores: np.ndarray, calibration: np.ndarray, side: Side) -> np.ndarray:
    r"""How unusual a score is among clean scores. ROC curves are drawn of it; it has no rate.

    Inside the clean range it is $1 - 2 \min(F, 1 - F)$ with F the interpolated distribution of the
    calibration scores (or $1 - F$, or F, for one side), in [0, 1]; beyond the range it grows by
    the distance in clean interquartile ranges. A NaN has an infinite value.

    Returns:
        `(n,)` float64; larger is less like a clean image.
    """
    ordered = np.sort(calibration)
    share = _share_below(scores, ordered)
    low, high = np.quantile(ordered, (0.25, 0.75))
    width = max(high - low, np.finfo(float).tiny)
    with np.errstate(over="ignore"):  # inf where all clean scores are equal
        under = np.clip(ordered[0] - scores, 0.0, None) / width
        over = np.clip(scores - ordered[-1], 0.0, None) / width
    if side == "low":
        found = 1.0 - share + under - over
    elif side == "high":
        found = share + over - under
    else:
        found = 1.0 - 2.0 * np.minimum(share, 1.0 - share) + under + over
    return np.where(np.isnan(scores), math.inf, found)


def _share_below(scores: np.ndarray, ordered: np.ndarray) -> np.ndarray:
    """The distribution of sorted values: i / (n + 1) at the i-th, linear between neighbours.

    This is `np.interp`, except that `np.interp` overflows between two values that nearly agree.
    """
    last = len(ordered) - 1
    above = np.searchsorted(ordered, scores, side="right")
    below = np.clip(above - 1, 0, last)
    start, end = ordered[below], ordered[np.clip(above, 0, last)]
    way = np.divide(scores - start, end - start, out=np.zeros(len(scores)), where=end > start)
    found: np.ndarray = (below + 1 + np.clip(way, 0.0, 1.0)) / (len(ordered) + 1)
    return found
