"""The area under the curve is scikit-learn's, and its interval covers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from flatguard.detection.auroc import auroc

SCORES = st.lists(st.integers(-5, 5), min_size=2, max_size=40)


@given(SCORES, st.data())
def test_the_area_is_scikit_learns_with_ties(clean: list[int], data: st.DataObject) -> None:
    own = data.draw(st.lists(st.integers(-5, 5), min_size=1, max_size=len(clean)))
    made_of = np.arange(len(own))
    found = auroc(np.array(clean, float), np.array(own, float), made_of, 0)
    truth = roc_auc_score([0] * len(clean) + [1] * len(own), clean + own)
    assert found.value == pytest.approx(truth)
    assert 0.0 <= found.interval[0] <= found.interval[1] <= 1.0


def test_its_interval_covers_the_truth_nine_times_in_ten_and_more() -> None:
    """Normal scores a deviation apart have an area of 0.760."""
    generator, covered = np.random.default_rng(0), 0
    for seed in range(200):
        clean, moved = generator.normal(size=60), generator.normal(1.0, size=60)
        low, high = auroc(clean, moved, np.arange(60), seed).interval
        covered += low <= 0.7602 <= high
    assert covered >= 180
