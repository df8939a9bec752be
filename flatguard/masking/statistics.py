"""Exact statistics of counts."""

from __future__ import annotations

import math
from collections.abc import Sequence

CONFIDENCE_LEVEL = 0.95


def interval(successes: int, trials: int, level: float = CONFIDENCE_LEVEL) -> tuple[float, float]:
    """The exact (Clopper-Pearson) interval of a proportion; (0, 1) without trials."""
    from scipy.stats import binomtest

    if not trials:
        return 0.0, 1.0
    found = binomtest(successes, trials).proportion_ci(level, method="exact")
    return float(found.low), float(found.high)


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
