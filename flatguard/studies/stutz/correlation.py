"""Rank correlations over checkpoints; those of one training run are not independent."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from flatguard.checks.statistics import CONFIDENCE_LEVEL

RESAMPLES = 2000
FEWEST = 5
"""Fewer runs give no correlation across runs."""


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
        given: a column whose ranks are held fixed.
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
    from scipy.stats import ttest_1samp

    known = _finite(values)
    if len(known) < FEWEST:
        return None
    return _mean(float(known.mean()), len(known), partial(ttest_1samp, known, 0.0))


def mean_difference(first: Sequence[float], second: Sequence[float]) -> Mean | None:
    """The first mean minus the second, with Welch's interval; None if either has below five."""
    from scipy.stats import ttest_ind

    one, other = _finite(first), _finite(second)
    if min(len(one), len(other)) < FEWEST:
        return None
    test = partial(ttest_ind, one, other, equal_var=False)
    return _mean(float(one.mean() - other.mean()), len(one) + len(other), test)


def _finite(values: Sequence[float]) -> np.ndarray:
    known = np.asarray(values, dtype="float64")
    finite: np.ndarray = known[np.isfinite(known)]
    return finite


def _mean(value: float, n: int, test: Callable[[], Any]) -> Mean:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # equal values: an interval of width 0
        ends = test().confidence_interval(CONFIDENCE_LEVEL)
    return Mean(value, (float(ends.low), float(ends.high)), n)
