"""Exact statistics of counts, and intervals of medians and rank correlations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

CONFIDENCE_LEVEL = 0.95


def interval(successes: int, trials: int, level: float = CONFIDENCE_LEVEL) -> tuple[float, float]:
    """The exact (Clopper-Pearson) interval of a proportion; (0, 1) without trials."""
    from scipy.stats import binomtest

    if not trials:
        return 0.0, 1.0
    found = binomtest(successes, trials).proportion_ci(level, method="exact")
    return float(found.low), float(found.high)


def mean_interval(
    total: float, trials: int, level: float = CONFIDENCE_LEVEL
) -> tuple[float, float]:
    """The Clopper-Pearson interval of a mean of `trials` values in [0, 1] whose sum is `total`.

    The sum need not be whole. Values between 0 and 1 vary less than coins of the same mean, so the
    interval is wide rather than narrow. (0, 1) without trials.
    """
    from scipy.stats import beta

    if not trials:
        return 0.0, 1.0
    tail = (1.0 - level) / 2.0
    low = 0.0 if total <= 0 else float(beta.ppf(tail, total, trials - total + 1.0))
    high = 1.0 if total >= trials else float(beta.ppf(1.0 - tail, total + 1.0, trials - total))
    return low, high


def mcnemar(only_first: int, only_second: int) -> float:
    """The exact two-sided McNemar test: p of so uneven a split of the discordant pairs."""
    from scipy.stats import binomtest

    discordant = only_first + only_second
    if not discordant:
        return 1.0
    return float(binomtest(only_first, discordant, 0.5).pvalue)


def rank_biserial(first: Sequence[float], second: Sequence[float]) -> float | None:
    """2 U / (n m) - 1 in [-1, 1]: 1 if all of `first` lies above all of `second`; ties are half.

    None if either is empty.
    """
    from scipy.stats import mannwhitneyu

    one = [value for value in first if math.isfinite(value)]
    other = [value for value in second if math.isfinite(value)]
    if not one or not other:
        return None
    u = mannwhitneyu(one, other, alternative="two-sided").statistic
    return float(2.0 * u / (len(one) * len(other)) - 1.0)


@dataclass(frozen=True)
class Correlation:
    """Spearman's rank correlation of n pairs, with its 95% interval."""

    rho: float
    interval: tuple[float, float]
    n: int


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> Correlation | None:
    r"""Spearman's ρ of the pairs in which both are finite; ties share their rank.

    The interval is that of Bonett & Wright (2000): $\tanh(\mathrm{artanh}\,\rho \pm 1.96
    \sqrt{(1 + \rho^2/2) / (n - 3)})$. None below five pairs, or where either never changes.
    """
    from scipy.stats import norm, spearmanr

    pairs = [
        (a, b) for a, b in zip(first, second, strict=True) if math.isfinite(a) and math.isfinite(b)
    ]
    n = len(pairs)
    if n < 5 or any(len({pair[i] for pair in pairs}) == 1 for i in (0, 1)):
        return None
    rho = float(spearmanr(*zip(*pairs, strict=True)).statistic)
    middle = math.atanh(min(max(rho, -1.0 + 1e-12), 1.0 - 1e-12))
    half = float(norm.ppf(0.5 + CONFIDENCE_LEVEL / 2)) * math.sqrt((1 + rho**2 / 2) / (n - 3))
    return Correlation(rho, (math.tanh(middle - half), math.tanh(middle + half)), n)


def median_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """The exact interval of a median, from order statistics; None below six finite values.

    At least 95%: its ends are the values whose ranks a binomial (n, 1/2) leaves outside.
    """
    from scipy.stats import binom

    ordered = sorted(value for value in values if not math.isnan(value))
    n = len(ordered)
    if n < 6:
        return None
    rank = int(binom.ppf((1 - CONFIDENCE_LEVEL) / 2, n, 0.5))
    return ordered[rank - 1], ordered[n - rank]
