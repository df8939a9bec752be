"""How often a decision on a sample is wrong."""

from fractions import Fraction
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.evidence import judged_by

from flatguard.checks.chance import LEVEL
from flatguard.checks.error_rates import (
    chance_of_pass,
    error_rates,
    images_needed,
    most_accepted,
    within,
    wrong_pass,
)
from flatguard.checks.mechanism import NEEDED
from flatguard.checks.statistics import mcnemar
from flatguard.checks.verdict import judge

SIZES = st.integers(1, 3000)
SHARES = st.floats(0.0, 0.99)


def tail(most: int, n: int, share: float) -> float:
    """P(X <= most), summed exactly."""
    p = Fraction(share)
    return float(sum(comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(most + 1)))


def test_the_figures_of_100_images() -> None:
    rates = {round(rate.overestimate, 3): rate.passes for rate in error_rates(100, 0.05)}
    assert rates[0.07] == pytest.approx(0.29, abs=0.005)
    assert 1 - chance_of_pass(100, 0.05, 0.04) == pytest.approx(0.21, abs=0.005)
    assert rates[0.1] == pytest.approx(tail(5, 100, 0.1), rel=1e-9)


@settings(deadline=None)
@given(SIZES, SHARES)
def test_it_accepts_what_the_verdict_accepts(n: int, tolerance: float) -> None:
    most = most_accepted(n, tolerance)
    assert within(most, n, tolerance)
    assert most == n or not within(most + 1, n, tolerance)


@pytest.mark.parametrize(("excess", "word"), [(3, "consistent"), (4, "overestimated")])
def test_the_verdict_decides_by_the_same_number(excess: int, word: str) -> None:
    """60 images, and a tolerance of 5%."""
    found = judged_by({"control": range(excess), "loss": range(excess)}, n=60, survivors=range(40))
    assert most_accepted(60, 0.05) == 3
    assert judge(found, 0.05).verdict == word


def test_the_chance_is_the_frequency_in_simulated_samples() -> None:
    drawn = np.random.default_rng(0).binomial(100, 0.07, size=20_000)
    passed = np.mean([within(int(excess), 100, 0.05) for excess in drawn])
    assert passed == pytest.approx(chance_of_pass(100, 0.05, 0.07), abs=0.01)


@settings(deadline=None, max_examples=40)
@given(st.floats(0.02, 0.3), st.floats(0.001, 0.5), st.integers(0, 3))
def test_from_the_needed_images_on_every_sample_suffices(
    tolerance: float, most: float, quarter: int
) -> None:
    share = tolerance * quarter / 4
    needed = images_needed(share, tolerance, most)
    assert needed is not None

    def suffices(n: int) -> bool:
        return wrong_pass(int(np.ceil(share * n - 1e-9)), n, tolerance) <= most

    assert needed == 1 or not suffices(needed - 1)
    assert all(suffices(n) for n in range(needed, needed + 200))


def test_no_sample_shows_what_is_at_the_tolerance() -> None:
    assert images_needed(0.05, 0.05, 0.05) is None
    assert images_needed(0.04999999, 0.05, 0.05) is None
    assert images_needed(0.0, 0.0, 0.05) is None
    assert images_needed(0.0, 0.05, 0.05) == 59
    assert 0.95**59 <= 0.05 < 0.95**58


def test_a_wrong_pass_is_as_rare_as_promised() -> None:
    """A gate that accepts a chance of 5% passes a model at the tolerance in at most 5%."""
    drawn = np.random.default_rng(1).binomial(200, 0.05, size=5_000)
    passed = np.mean([wrong_pass(int(excess), 200, 0.05) <= 0.05 for excess in drawn])
    assert 0.005 < passed < 0.06


def test_a_mechanism_needs_six_samples() -> None:
    assert mcnemar(NEEDED, 0) < LEVEL <= mcnemar(NEEDED - 1, 0)
    few = judge(judged_by({"loss": range(5)}, n=60, survivors=range(40)), 0.05)
    assert few.verdict == "overestimated"
    assert any("6 images are needed" in step and "there are 5" in step for step in few.next)
