"""Rank correlations over checkpoints, where those of one training run are no independent draws."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from flatguard.checks.statistics import CONFIDENCE_LEVEL

RESAMPLES = 2000
FEWEST = 5
"""Fewer runs say nothing about a correlation across runs."""


@dataclass(frozen=True)
class Association:
    """A rank correlation with its bootstrap interval.

    Attributes:
        rho: Spearman's, or the partial one.
        interval: 95%, percentiles of a bootstrap that draws whole training runs.
        n: checkpoints.
        runs: training runs.
    """

    rho: float
    interval: tuple[float, float]
    n: int
    runs: int


def association(
    rows: pd.DataFrame, x: str, y: str, *, given: str | None = None, seed: int = 0
) -> Association | None:
    """Spearman's ρ of two columns, over checkpoints; the partial one where `given` names a third.

    Args:
        rows: a row for each checkpoint, with its training run in the column `run`.
        x: a column.
        y: another.
        given: what is held fixed: ranks are what is correlated, and what is held.
        seed: of the bootstrap.

    Returns:
        None below five runs that were measured in all columns, or where a column never changes.
    """
    columns = [x, y] + ([given] if given else [])
    known = rows.dropna(subset=columns)
    runs = [group[columns].to_numpy("float64") for _, group in known.groupby("run")]
    if len(runs) < FEWEST:
        return None
    rho = _rho(np.concatenate(runs))
    if not math.isfinite(rho):
        return None
    generator = np.random.default_rng(seed)
    drawn = [
        _rho(np.concatenate([runs[i] for i in generator.integers(len(runs), size=len(runs))]))
        for _ in range(RESAMPLES)
    ]
    outside = (1 - CONFIDENCE_LEVEL) / 2
    low, high = np.nanquantile(drawn, [outside, 1 - outside])
    return Association(rho, (float(low), float(high)), len(known), len(runs))


def _rho(values: np.ndarray) -> float:
    """Of the first two columns; given the third where there is one. NaN where one is constant."""
    from scipy.stats import rankdata

    ranks = rankdata(values, axis=0)
    if bool((ranks == ranks[0]).all(axis=0).any()):
        return math.nan
    matrix = np.corrcoef(ranks, rowvar=False)
    if values.shape[1] == 2:
        return float(matrix[0, 1])
    xy, xz, yz = matrix[0, 1], matrix[0, 2], matrix[1, 2]
    left = (1 - xz**2) * (1 - yz**2)
    return float((xy - xz * yz) / math.sqrt(left)) if left > 1e-12 else math.nan


@dataclass(frozen=True)
class Mean:
    """A mean over training runs, or a difference of two, with its 95% interval."""

    value: float
    interval: tuple[float, float]
    n: int


def mean_over_runs(values: Sequence[float]) -> Mean | None:
    """The mean of one value a run, with Student's interval; None below five finite ones.

    Five values are too few for percentiles of a bootstrap.
    """
    known = np.array([value for value in values if math.isfinite(value)])
    if len(known) < FEWEST:
        return None
    error = float(known.std(ddof=1)) / math.sqrt(len(known))
    return _mean(float(known.mean()), error, len(known) - 1, len(known))


def mean_difference(first: Sequence[float], second: Sequence[float]) -> Mean | None:
    """The first mean minus the second, with Welch's interval; None if either has below five."""
    one, other = (np.array([v for v in part if math.isfinite(v)]) for part in (first, second))
    if min(len(one), len(other)) < FEWEST:
        return None
    squares = [float(part.var(ddof=1)) / len(part) for part in (one, other)]
    total = sum(squares)
    parts = sum(s**2 / (len(part) - 1) for s, part in zip(squares, (one, other), strict=True))
    freedom = total**2 / parts if parts else len(one) + len(other) - 2.0
    value = float(one.mean() - other.mean())
    return _mean(value, math.sqrt(total), freedom, len(one) + len(other))


def _mean(value: float, error: float, freedom: float, n: int) -> Mean:
    from scipy.stats import t

    half = float(t.ppf(0.5 + CONFIDENCE_LEVEL / 2, freedom)) * error
    return Mean(value, (value - half, value + half), n)
