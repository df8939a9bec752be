"""A detector is calibrated on a subject's images and attacked adaptively."""

from pathlib import Path

import pytest
from support import digits_target

from flatguard.data.arrays import ArrayDataset
from flatguard.data.hashing import DataHash
from flatguard.detection import SharpnessDetector
from flatguard.detection.detector_file import SavedDetector
from flatguard.detection.fitting import CalibrationSettings, fit_detector
from flatguard.errors import UsageError
from flatguard.execution import context
from flatguard.execution.context import EvaluationContext, ModelAndData
from flatguard.execution.progress import Silent
from flatguard.request import make_request
from flatguard.targets import Target


def attack_on(target: Target, n: int, eps: str) -> EvaluationContext:
    data = ArrayDataset(digits_target.images(n), digits_target.labels(n), "digits")
    request = make_request(
        model="digits", attack="torchattacks:PGD", eps=eps, attack_args={"steps": 20}
    )
    return context.resolve(request, target, data)


def model_and_data(whole: EvaluationContext) -> ModelAndData:
    return ModelAndData(whole.request, whole.target, whole.dataset, whole.device)


def test_the_file_has_the_data_and_the_adaptive_attack(digits_net: Target, tmp_path: Path) -> None:
    whole = attack_on(digits_net, 100, "0.3")
    found = fit_detector(whole, CalibrationSettings(alpha=0.2, side="low"), 6, Silent())
    found.save(tmp_path / "d.json")
    saved = SavedDetector.open(tmp_path / "d.json")
    hashes = DataHash()
    hashes.update(whole.dataset.block(0, 100))
    assert saved.data == found.data
    assert (found.data.sha256, found.data.samples) == (hashes.hexdigest(), 100)
    assert (saved.how.alpha, saved.side) == (0.2, "low")
    assert saved.adaptive == found.adaptive
    assert saved.adaptive is not None
    assert (saved.adaptive.samples, saved.adaptive.eps) == (6, 0.3)
    assert saved.adaptive.false_positives == 0.2
    assert 0 < saved.adaptive.evaded <= saved.adaptive.misclassified <= 6
    direct = SharpnessDetector(whole.target, alpha=0.2, side="low").fit(digits_target.images(100))
    assert direct.thresholds_.bounds == found.detector.thresholds_.bounds


def test_an_image_that_is_misclassified_but_flagged_does_not_evade(digits_net: Target) -> None:
    """Of a detector that flags nearly every clean image."""
    whole = attack_on(digits_net, 100, "0.15")
    found = fit_detector(whole, CalibrationSettings(alpha=0.95), 12, Silent()).adaptive
    assert found is not None
    assert found.evaded < found.misclassified
    assert found.interval[0] <= found.success <= found.interval[1]


def test_without_an_attack_nothing_is_attacked(digits_net: Target) -> None:
    subject = model_and_data(attack_on(digits_net, 60, "0.3"))
    assert fit_detector(subject, CalibrationSettings(), 6, Silent()).adaptive is None
    with pytest.raises(UsageError, match="a stump learns from adversarial examples"):
        fit_detector(subject, CalibrationSettings(calibration="stump"), 0, Silent())


def test_a_stump_needs_an_attack_that_fools(digits_net: Target) -> None:
    settings = CalibrationSettings(calibration="stump")
    whole = attack_on(digits_net, 60, "0.4")
    found = fit_detector(whole, settings, 0, Silent()).detector.thresholds_
    assert found.stump is not None
    assert len(found.calibration[-1]) < 60  # only the originals of images that are fooled
    weak = attack_on(digits_net, 60, "0.0001")
    with pytest.raises(UsageError, match="fooled none of 60 images"):
        fit_detector(weak, settings, 0, Silent())
