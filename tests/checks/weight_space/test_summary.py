"""Flatness from stored losses: its value, its interval, and what is missing."""

import numpy as np
import pytest

from flatguard.checks.weight_space.summary import ends, mean, worst


def test_the_interval_holds_the_mean_over_directions_and_samples() -> None:
    """Directions of the same model differ more than samples do here: both count. In 94 of 100."""
    generator, inside = np.random.default_rng(0), 0
    for index in range(100):
        directions, samples = generator.normal(size=(10, 1)), generator.normal(size=(1, 60))
        rises = 2.0 + 0.5 * directions + samples + 0.2 * generator.normal(size=(10, 60))
        low, high = ends(rises, seed=index) or (0.0, 0.0)
        inside += low <= 2.0 <= high
    assert inside >= 85  # ten directions are few, and percentiles know no Student


def test_one_row_is_a_plain_bootstrap_of_samples() -> None:
    values = np.random.default_rng(1).exponential(size=(1, 400))
    low, high = ends(values) or (0.0, 0.0)
    half = 1.96 * values.std() / 20
    assert (high - low) / 2 == pytest.approx(half, rel=0.15)
    assert low < values.mean() < high


def test_what_was_not_measured_or_not_finite_is_missing() -> None:
    broken = np.array([[1.0, np.nan]])
    for values in (np.zeros((0, 0)), np.zeros((0, 5)), broken):
        assert mean(values) is None
        assert worst(values) is None
        assert ends(values) is None


def test_the_worst_case_is_never_negative() -> None:
    assert worst(np.array([[-1.0, -3.0], [-2.0, -2.0]])) == 0.0
    assert worst(np.array([[-1.0, -3.0], [1.0, 2.0]])) == 1.5
