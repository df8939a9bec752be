"""All detectors are fitted, calibrated and scored on the same images."""

from dataclasses import replace

import numpy as np
import pytest
from support import digits_target

from flatguard.detection.baselines import BASELINES, TrainingImages
from flatguard.detection.detector_set import RATES, DetectorSet
from flatguard.detection.scores import ONE_PASS
from flatguard.errors import UsageError
from flatguard.targets import Target


def test_a_baseline_that_cannot_be_fitted_is_missing_with_its_reason(
    digits_net: Target, training: TrainingImages
) -> None:
    detectors = DetectorSet(digits_net, 64, 0)
    detectors.fit(replace(training, adversarial=training.adversarial[:9]))
    assert detectors.missing == {"lid": "only 9 adversarial examples to learn from; 10 are needed"}
    scores = detectors.score(digits_target.images(30, 200))
    names = [*ONE_PASS, *(kind.name for kind in BASELINES if kind.name != "lid")]
    assert list(scores) == names
    assert names[0] == "log-kappa"
    assert all(values.shape == (30,) for values in scores.values())


def test_scores_do_not_depend_on_the_batch(digits_net: Target) -> None:
    images = digits_target.images(30)
    whole, parts = (DetectorSet(digits_net, size, 0) for size in (30, 7))
    for detectors in (whole, parts):
        detectors.fit(TrainingImages(images, digits_target.labels(30), images, images))
    np.testing.assert_allclose(
        whole.score(images)["log-kappa"], parts.score(images)["log-kappa"], rtol=1e-5
    )


def test_thresholds_come_from_the_clean_scores(digits_net: Target) -> None:
    detectors = DetectorSet(digits_net, 64, 0)
    clean = np.arange(399.0)
    detectors.calibrate({"log-kappa": clean, "odds": clean})
    kappa, odds = detectors.calibrated["log-kappa"], detectors.calibrated["odds"]
    assert (kappa.side, odds.side) == ("two-sided", "high")
    assert kappa.bounds[0.05].ends == (9.0, 389.0)
    assert odds.bounds[0.01].ends == (-np.inf, 395.0)
    assert set(kappa.bounds) == set(RATES)
    outer = kappa.atypicality(np.array([-1.0, 200.0, 500.0]))
    assert outer[0] > outer[1] < outer[2]
    with pytest.raises(UsageError, match="too few"):
        detectors.calibrate({"odds": clean[:20]})
