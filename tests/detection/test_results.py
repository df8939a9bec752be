"""Shares with exact intervals."""

import numpy as np
import pytest
from scipy.stats import beta

from flatguard.detection.results import Share


def test_a_share_has_its_exact_interval() -> None:
    found = Share.of_flags(np.array([True, False, True, False, False]))
    assert (found.count, found.of, found.share) == (2, 5, 0.4)
    assert found.interval == pytest.approx((beta.ppf(0.025, 2, 4), beta.ppf(0.975, 3, 3)))


def test_a_share_of_no_flags_is_none() -> None:
    found = Share.of_flags(np.zeros(0, bool))
    assert (found.share, found.interval) == (None, (0.0, 1.0))
