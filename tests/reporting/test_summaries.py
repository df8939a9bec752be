import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from flatguard.reporting.summaries import accuracy_by, evenly_spaced, finite_median


def test_accuracy_by_group_is_ascending_with_exact_intervals() -> None:
    group = pd.Series([2.0, 1.0, 2.0, 1.0, 2.0])
    fooled = pd.Series([True, False, False, False, True])
    first, second = accuracy_by(group, fooled)
    assert (first.group, first.correct, first.samples, first.share) == (1.0, 2, 2, 1.0)
    assert (second.group, second.correct, second.samples) == (2.0, 1, 3)
    exact = binomtest(1, 3).proportion_ci(0.95, method="exact")
    assert second.interval == pytest.approx((exact.low, exact.high))
    assert second.note == "95% 1% to 91%"


def test_the_median_ignores_what_is_not_finite() -> None:
    assert finite_median(np.array([1.0, np.nan, 3.0, np.inf])) == 2.0
    assert finite_median(np.array([np.nan])) is None


@given(st.integers(1, 500), st.integers(2, 60))
def test_an_even_subset_holds_both_ends(count: int, most: int) -> None:
    found = evenly_spaced(count, most)
    assert len(found) == min(count, most)
    assert (found[0], found[-1]) == (0, count - 1)
    assert np.ptp(np.diff(found)) <= 1 if len(found) > 2 else True
