"""Bounds decide by the predicted class."""

import numpy as np
import pytest

from flatguard.detection.conformal import Bounds, FalsePositiveRate
from flatguard.detection.thresholds import ALL, Thresholds, conformal, from_stump
from flatguard.errors import UsageError

SCORES = np.array([0.0, 5.0, 5.0, 5.0, np.nan])
PREDICTED = np.array([0, 0, 1, 2, 1])


@pytest.fixture
def by_class() -> Thresholds:
    bounds = {0: Bounds(lower=1.0, upper=6.0), 1: Bounds(upper=4.0)}
    return Thresholds(bounds, {0: np.arange(1.0, 7.0), 1: np.arange(5.0)}, "two-sided")


def test_each_class_has_its_bounds_and_an_unknown_class_is_flagged(by_class: Thresholds) -> None:
    assert by_class.flags(SCORES, PREDICTED).tolist() == [True, False, True, True, True]
    distance = by_class.distance(SCORES, PREDICTED)
    assert distance.tolist() == [-1.0, 1.0, -1.0, -np.inf, -np.inf]
    unusual = by_class.atypicality(SCORES, PREDICTED)
    assert np.isinf(unusual).tolist() == [False, False, False, True, True]
    assert unusual[0] > 1.0 > unusual[1]


def test_one_pair_of_bounds_decides_for_every_class() -> None:
    every = Thresholds({ALL: Bounds(lower=1.0)}, {ALL: np.arange(1.0, 7.0)}, "low")
    assert every.flags(SCORES, PREDICTED).tolist() == [True, False, False, False, True]
    assert every.distance(SCORES, PREDICTED).tolist() == [-1.0, 4.0, 4.0, 4.0, -np.inf]


def test_conformal_thresholds_per_class_name_the_smallest_class() -> None:
    scores, predicted = np.arange(100.0), np.repeat([0, 1], [70, 30])
    found = conformal(scores, predicted, FalsePositiveRate(0.1), classes=2)
    assert found.bounds[0].ends == (2.0, 67.0)
    assert found.bounds[1].ends == (70.0, 99.0)
    assert conformal(scores, predicted, FalsePositiveRate(0.1)).bounds[ALL].ends == (4.0, 95.0)
    with pytest.raises(UsageError, match="30 calibration images predicted as class 1 are too few"):
        conformal(scores, predicted, FalsePositiveRate(0.05), classes=2)


@pytest.mark.parametrize("low", [True, False])
def test_a_stump_flags_its_own_side(low: bool) -> None:
    scores = np.r_[np.arange(20.0), np.arange(20.0) + 100] * (-1 if low else 1)
    kinds, groups = np.repeat([False, True], 20), np.tile(np.arange(20), 2)
    found = from_stump(scores, kinds, groups, 0)
    assert found.side == ("low" if low else "high")
    np.testing.assert_array_equal(found.flags(scores, np.zeros(40, int)), kinds)
    np.testing.assert_array_equal(found.calibration[ALL], np.sort(scores[:20]))
    with pytest.raises(UsageError, match="needs clean and adversarial images"):
        from_stump(scores, np.zeros(40, bool), groups, 0)
