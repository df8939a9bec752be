"""Exact statistics against their definitions."""

from fractions import Fraction
from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta

from flatguard.checks.statistics import (
    interval,
    mcnemar,
    median_interval,
    rank_biserial,
    rank_correlation,
)


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [(0, 20, 0.0, 0.1684), (5, 20, 0.0866, 0.4910), (20, 20, 0.8316, 1.0), (0, 0, 0.0, 1.0)],
)
def test_clopper_pearson(successes: int, trials: int, low: float, high: float) -> None:
    assert interval(successes, trials) == pytest.approx((low, high), abs=1e-4)


@given(st.integers(0, 40), st.integers(0, 40))
def test_mcnemar_is_the_exact_binomial_test(b: int, c: int) -> None:
    n, least = b + c, max(b, c)
    tail = Fraction(sum(comb(n, i) for i in range(least, n + 1)), 2**n)
    assert mcnemar(b, c) == pytest.approx(float(min(Fraction(1), 2 * tail)), abs=1e-12)


numbers = st.lists(st.integers(-5, 5).map(float), min_size=1, max_size=12)


@given(numbers, numbers)
def test_rank_biserial_is_the_difference_of_favourable_pairs(
    first: list[float], second: list[float]
) -> None:
    pairs = [(a > b) - (a < b) for a in first for b in second]
    assert rank_biserial(first, second) == pytest.approx(sum(pairs) / len(pairs))


def test_nothing_to_rank() -> None:
    assert rank_biserial([], [1.0]) is None
    assert rank_biserial([float("nan")], [1.0]) is None


def test_rank_correlation_of_known_orders() -> None:
    up = rank_correlation([1, 2, 3, 4, 5, 6], [2, 4, 8, 16, 32, 64])
    assert up is not None
    assert up.rho == pytest.approx(1.0)
    assert rank_correlation([1, 2, 3, 4], [1, 2, 3, 4]) is None
    assert rank_correlation([1.0] * 9, list(range(9))) is None
    nan = float("nan")
    some = rank_correlation([1, 2, nan, 4, 5, 6, 7], [7, 6, 0, 4, 5, 2, nan])
    assert some is not None
    assert some.n == 5


@pytest.mark.parametrize("levels", [1000, 8])
def test_the_interval_of_a_rank_correlation_covers_it(levels: int) -> None:
    """In 95% of 400 samples of 60, also where most values are tied."""
    generator, covered = np.random.default_rng(0), 0

    def draw(n: int) -> tuple[np.ndarray, np.ndarray]:
        x = generator.normal(size=n)
        y = 0.6 * x + 0.8 * generator.normal(size=n)
        return x, np.floor(y * levels / 8) if levels < 100 else y

    true = rank_correlation(*(v.tolist() for v in draw(100_000)))
    assert true is not None
    for _ in range(400):
        found = rank_correlation(*(v.tolist() for v in draw(60)))
        assert found is not None
        covered += found.interval[0] <= true.rho <= found.interval[1]
    assert 0.92 <= covered / 400 <= 0.98


@pytest.mark.parametrize("n", [6, 7, 30, 101])
def test_the_interval_of_a_median_covers_it(n: int) -> None:
    generator = np.random.default_rng(n)
    ends = [median_interval(generator.normal(size=n).tolist()) for _ in range(1000)]
    assert sum(e is not None and e[0] <= 0 <= e[1] for e in ends) >= 935
    assert median_interval([1.0] * 5) is None


@pytest.mark.parametrize(("k", "n"), [(0, 20), (3, 20), (20, 20), (90, 1000)])
def test_intervals_are_clopper_pearson(k: int, n: int) -> None:
    low, high = interval(k, n)
    assert low == pytest.approx(beta.ppf(0.025, k, n - k + 1) if k else 0.0)
    assert high == pytest.approx(beta.ppf(0.975, k + 1, n - k) if k < n else 1.0)
