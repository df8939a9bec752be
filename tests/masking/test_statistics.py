"""Exact statistics against their definitions."""

from fractions import Fraction
from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flatguard.masking.statistics import interval, mcnemar, rank_biserial


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
