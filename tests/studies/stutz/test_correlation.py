"""Rank correlations over training runs, against other definitions and by coverage."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from flatguard.studies.stutz import correlation
from flatguard.studies.stutz.correlation import association, mean_difference, mean_over_runs


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(correlation, "RESAMPLES", 300)


def independent(n: int, seed: int = 0) -> pd.DataFrame:
    """x and y share nothing but z."""
    generator = np.random.default_rng(seed)
    z = generator.normal(size=n)
    noise = generator.normal(size=(2, n))
    return pd.DataFrame(
        {"run": np.arange(n), "z": z, "x": z + 0.5 * noise[0], "y": z + 0.5 * noise[1]}
    )


def test_it_is_spearmans() -> None:
    rows = independent(40)
    found = association(rows, "x", "y")
    assert found is not None
    assert found.rho == pytest.approx(stats.spearmanr(rows["x"], rows["y"]).statistic)
    assert found.interval[0] < found.rho < found.interval[1]
    assert (found.n, found.runs) == (40, 40)


def test_the_partial_one_is_the_correlation_of_what_the_ranks_of_z_leave() -> None:
    rows = independent(60)
    ranks = rows[["x", "y", "z"]].rank()
    left = [
        ranks[name] - np.polyval(np.polyfit(ranks["z"], ranks[name], 1), ranks["z"])
        for name in ("x", "y")
    ]
    found = association(rows, "x", "y", given="z")
    assert found is not None
    assert found.rho == pytest.approx(float(np.corrcoef(*left)[0, 1]), abs=1e-12)


def test_what_is_explained_by_a_third_vanishes_given_it() -> None:
    rows = independent(200)
    plain, given = association(rows, "x", "y"), association(rows, "x", "y", given="z")
    assert plain is not None
    assert given is not None
    assert plain.interval[0] > 0.5
    assert given.interval[0] < 0 < given.interval[1]


def test_epochs_of_one_run_are_no_independent_draws() -> None:
    """Twenty copies of each run say no more than one: the interval stays as wide."""
    rows = independent(12, seed=3)
    once, often = association(rows, "x", "y"), association(pd.concat([rows] * 20), "x", "y")
    assert once is not None
    assert often is not None
    assert often.rho == pytest.approx(once.rho)
    assert often.runs == 12
    assert np.ptp(often.interval) == pytest.approx(np.ptp(once.interval), rel=0.05)


def test_the_interval_covers() -> None:
    """In at least nine of ten samples of 40 runs: a percentile bootstrap is a little narrow."""
    true = stats.spearmanr(*(independent(50_000, 99)[name] for name in ("x", "y"))).statistic
    inside = 0
    for seed in range(60):
        found = association(independent(40, seed), "x", "y")
        assert found is not None
        inside += found.interval[0] <= true <= found.interval[1]
    assert inside >= 54


def test_too_little_is_no_correlation() -> None:
    rows = independent(40)
    assert association(rows.head(4), "x", "y") is None
    assert association(rows.assign(x=1.0), "x", "y") is None
    assert association(rows.assign(x=np.nan), "x", "y") is None
    some = rows.assign(x=rows["x"].where(rows["run"] >= 35))
    assert association(some.iloc[:39], "x", "y") is None
    assert association(rows.assign(z=rows["x"]), "x", "y", given="z") is None


def test_means_and_differences_are_students_and_welchs_and_need_five() -> None:
    values, others = [1.0, 2.0, 3.0, 4.0, 5.0], [10.0, 10.5, 11.0, 10.2, 10.1, 12.0]
    found = mean_over_runs([*values, math.nan])
    assert found is not None
    assert (found.value, found.n) == (3.0, 5)
    expected = stats.ttest_1samp(values, 0.0).confidence_interval()
    assert found.interval == pytest.approx((expected.low, expected.high))
    assert mean_over_runs(values[:4]) is None
    apart = mean_difference(others, values)
    assert apart is not None
    welch = stats.ttest_ind(others, values, equal_var=False).confidence_interval()
    assert apart.interval == pytest.approx((welch.low, welch.high))
    assert apart.value == pytest.approx(np.mean(others) - 3.0)
    assert mean_difference(values, values[:4]) is None
    same = mean_over_runs([2.0] * 5)
    assert same is not None
    assert same.interval == (2.0, 2.0)
