"""Thresholds from clean scores: what is promised is kept."""

import math
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm
from support import digits_target

from flatguard.detection.conformal import Bounds, FalsePositiveRate, Side, atypicality, calibrate
from flatguard.detection.detector import SharpnessDetector
from flatguard.errors import UsageError
from flatguard.targets import Target

SPLITS = 2000


@pytest.mark.parametrize(
    ("rate", "needed"),
    [
        (FalsePositiveRate(0.01, "low"), 99),
        (FalsePositiveRate(0.01), 199),
        (FalsePositiveRate(0.05, "high"), 19),
        (FalsePositiveRate(0.05), 39),
        (FalsePositiveRate(0.01, "low", delta=0.05), 299),  # log 0.05 / log 0.99
    ],
)
def test_how_many_are_needed(rate: FalsePositiveRate, needed: int) -> None:
    assert rate.min_samples() == needed
    scores = np.arange(float(needed))
    calibrate(scores, rate)
    with pytest.raises(UsageError, match=f"{needed - 1} calibration images are too few .*{needed}"):
        calibrate(scores[1:], rate)


@pytest.mark.parametrize("side", get_args(Side))
@pytest.mark.parametrize("alpha", [0.05, 0.01])
def test_false_positives_of_a_real_network_stay_below_alpha(
    digits_net: Target, side: str, alpha: float
) -> None:
    """Over random splits of 797 clean images, the mean rate is at most alpha."""
    pool = SharpnessDetector(digits_net).scored(digits_target.images(797)).score
    generator, rates = np.random.default_rng(0), []
    for _ in range(SPLITS):
        mixed = generator.permutation(pool)
        flags = calibrate(mixed[:300], FalsePositiveRate(alpha, side)).flags(mixed[300:])  # type: ignore[arg-type]
        rates.append(flags.mean())
    error = np.std(rates) / math.sqrt(SPLITS)
    assert np.mean(rates) <= alpha + 3 * error
    assert np.mean(rates) >= alpha * 0.6  # and it is not so low that nothing was promised


def test_given_one_calibration_set_the_rate_holds_with_probability_1_minus_delta() -> None:
    """For normal scores the rate of a pair of thresholds is known exactly."""
    generator, rate = np.random.default_rng(1), FalsePositiveRate(0.05, delta=0.1)
    above = 0
    for _ in range(SPLITS):
        bounds = calibrate(generator.normal(size=400), rate)
        true_rate = norm.cdf(bounds.lower) + norm.sf(bounds.upper)
        above += true_rate > 0.05
    assert above / SPLITS <= 0.1 + 3 * math.sqrt(0.1 * 0.9 / SPLITS)
    assert above / SPLITS >= 0.02  # the marginal thresholds would give about a half


def test_a_missing_score_calibrates_nothing_and_passes_nothing() -> None:
    with pytest.raises(UsageError, match="1 of 40 calibration images have no score"):
        calibrate(np.r_[np.arange(39.0), math.nan], FalsePositiveRate(0.05))
    assert Bounds().flags(np.array([math.nan, 0.0])).tolist() == [True, False]


@pytest.mark.parametrize(("alpha", "delta"), [(0.0, None), (1.0, None), (0.05, 0.0), (0.05, 2.0)])
def test_rates_are_shares(alpha: float, delta: float | None) -> None:
    with pytest.raises(UsageError, match="expected a share above 0 and below 1"):
        FalsePositiveRate(alpha, delta=delta)


def test_a_side_is_one_of_three() -> None:
    with pytest.raises(UsageError, match="--side: expected one of two-sided, low, high"):
        FalsePositiveRate(0.05, "both")  # type: ignore[arg-type]


@given(
    st.lists(st.floats(-50, 50), min_size=60, max_size=80, unique=True),
    st.lists(st.floats(-200, 200), min_size=1, max_size=20),
    st.sampled_from(get_args(Side)),
    st.sampled_from([0.05, 0.1, 0.3]),
)
def test_what_is_flagged_is_further_out_than_what_passes(
    clean: list[float], new: list[float], side: str, alpha: float
) -> None:
    calibration, scores = np.array(clean), np.array(new)
    flags = calibrate(calibration, FalsePositiveRate(alpha, side)).flags(scores)  # type: ignore[arg-type]
    out = atypicality(scores, calibration, side)  # type: ignore[arg-type]
    if flags.any() and not flags.all():
        assert out[flags].min() >= out[~flags].max() - 1e-9


@given(
    st.lists(st.integers(-20, 20), min_size=1, max_size=9),
    st.lists(st.floats(-25, 25), min_size=1, max_size=9),
)
def test_between_clean_scores_the_distribution_is_linear(
    clean: list[int], new: list[float]
) -> None:
    """As NumPy interpolates it."""
    ordered, scores = np.unique(np.array(clean, float)), np.array(new)
    shares = np.arange(1, len(ordered) + 1) / (len(ordered) + 1)
    inside = (scores >= ordered[0]) & (scores <= ordered[-1])
    found = atypicality(scores, ordered, "high")[inside]
    assert found == pytest.approx(np.interp(scores[inside], ordered, shares), abs=1e-12)


def test_nearly_equal_clean_scores_are_distinguished() -> None:
    tiny = np.nextafter(0.0, 1.0)
    clean = np.concatenate([np.linspace(-1, -0.1, 40), tiny * np.arange(5), np.linspace(1, 2, 40)])
    found = atypicality(tiny * np.arange(5), clean, "high")
    assert found == pytest.approx(np.arange(41, 46) / 86)


def test_beyond_the_clean_range_further_is_further_out() -> None:
    clean = np.linspace(-1, 1, 41)
    out = atypicality(np.array([-30.0, -3.0, 0.0, 3.0, 30.0, math.nan]), clean, "two-sided")
    assert out[0] == pytest.approx(out[4])
    assert out[0] > out[1] > out[2]
    assert math.isinf(out[5])
