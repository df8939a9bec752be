"""A stump on scores whose best threshold is known."""

import numpy as np
import pytest

from flatguard.detection.stump import fit_stump
from flatguard.errors import UsageError


@pytest.mark.parametrize("low", [True, False])
def test_it_finds_the_gap(low: bool) -> None:
    generator = np.random.default_rng(0)
    clean, moved = generator.uniform(0, 1, 50), generator.uniform(3, 4, 50)
    scores = np.r_[clean, moved] * (-1 if low else 1)
    stump = fit_stump(scores, np.repeat([False, True], 50), np.tile(np.arange(50), 2), 0)
    assert stump.low is low
    assert 1 < abs(stump.threshold) < 3
    assert stump.folds == (1.0,) * 5
    assert stump.predict(np.array([np.nan])).tolist() == [True]


def test_scores_that_float32_cannot_tell_apart_are_told_apart() -> None:
    scores = np.r_[-1e9 - np.arange(20.0), -1e9 + 1 + np.arange(20.0)]
    stump = fit_stump(scores, np.repeat([True, False], 20), np.tile(np.arange(20), 2), 0)
    assert stump.accuracy == 1.0


def test_noise_has_the_accuracy_of_a_coin() -> None:
    generator = np.random.default_rng(1)
    scores, kinds = generator.normal(size=2000), np.repeat([False, True], 1000)
    stump = fit_stump(scores, kinds, np.tile(np.arange(1000), 2), 0)
    assert stump.accuracy == pytest.approx(0.5, abs=0.05)


def test_folds_need_images() -> None:
    with pytest.raises(UsageError, match="in 5 folds needs 5 images or more, got 4"):
        fit_stump(np.arange(8.0), np.repeat([False, True], 4), np.tile(np.arange(4), 2), 0)


def test_where_no_threshold_helps_nothing_is_flagged() -> None:
    stump = fit_stump(np.ones(20), np.repeat([False, True], 10), np.tile(np.arange(10), 2), 0)
    assert np.isfinite(stump.threshold)
    assert not stump.predict(np.ones(3)).any()
