"""The estimator after scikit-learn's conventions, and its file."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torchattacks
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from support import digits_target

from flatguard.detection import SharpnessDetector
from flatguard.detection.thresholds import ALL
from flatguard.errors import DataError, DetectorError, UsageError
from flatguard.targets import Target, prepare
from flatguard.targets.target import make_target


@pytest.fixture(scope="module")
def fitted(digits_net: Target) -> SharpnessDetector:
    return SharpnessDetector(digits_net, alpha=0.05).fit(digits_target.images(300))


def test_it_is_an_estimator(digits_net: Target, fitted: SharpnessDetector) -> None:
    copy = clone(fitted.set_params(batch_size=64))
    assert copy.get_params() == fitted.get_params()
    assert copy.target is digits_net  # a model is not copied for every fold
    with pytest.raises(NotFittedError):
        copy.predict(digits_target.images(2))
    assert set(copy.get_params()) == {
        "target", "alpha", "side", "per_class", "delta", "calibration", "batch_size", "seed",
    }  # fmt: skip


def test_its_answers_agree(fitted: SharpnessDetector) -> None:
    images = torch.cat([digits_target.images(200, 300), torch.rand(50, 1, 8, 8)])
    predicted, distance = fitted.predict(images), fitted.decision_function(images)
    assert set(predicted) == {1, -1}
    np.testing.assert_array_equal(predicted == 1, distance >= 0)
    classified = fitted.classify(images)
    np.testing.assert_array_equal(classified.flagged, predicted == -1)
    np.testing.assert_array_equal(classified.predicted, classified.logits.argmax(dim=1).numpy())
    outer = -fitted.score_samples(images)
    assert outer[predicted == -1].min() >= outer[predicted == 1].max()
    np.testing.assert_array_equal(fitted.predict(images.numpy()), predicted)


def test_it_looks_once(fitted: SharpnessDetector, digits_net: Target) -> None:
    calls: list[int] = []
    handle = digits_net.model.register_forward_hook(lambda *_: calls.append(1))
    fitted.classify(digits_target.images(40))
    handle.remove()
    assert calls == [1]


def test_per_class_thresholds_name_what_is_missing(digits_net: Target) -> None:
    per_class = SharpnessDetector(digits_net, alpha=0.2, per_class=True)
    per_class.fit(digits_target.images(797))
    assert set(per_class.thresholds_.bounds) == set(range(10))
    flagged = per_class.predict(digits_target.images(797)) == -1
    assert 0.05 < flagged.mean() < 0.2
    strict = SharpnessDetector(digits_net, alpha=0.01, per_class=True)
    with pytest.raises(UsageError, match=r"predicted as class \d are too few .*: 199 are needed"):
        strict.fit(digits_target.images(797))


def test_a_stump_learns_from_adversarial_examples(digits_net: Target) -> None:
    images, labels = digits_target.images(300), digits_target.labels(300)
    with torch.no_grad():
        right = digits_net.model(images).argmax(dim=1) == labels
    attack = torchattacks.PGD(digits_net.model, eps=0.4, alpha=0.1, steps=20)
    moved = attack(images, labels)
    with torch.no_grad():
        fell = right & (digits_net.model(moved).argmax(dim=1) != labels)
    chosen = fell.nonzero()[:, 0]
    both = torch.cat([images[chosen], moved[chosen]])
    kinds = np.repeat([1, -1], len(chosen))
    stump = SharpnessDetector(digits_net, calibration="stump")
    stump.fit(both, kinds, groups=np.tile(chosen.numpy(), 2))
    found = stump.thresholds_.stump
    assert found is not None
    assert len(found.folds) == 5
    right_now = (stump.predict(both) == kinds).mean()
    assert right_now == pytest.approx(found.accuracy, abs=0.1)
    assert list(stump.thresholds_.bounds) == [ALL]


def test_a_stump_needs_both_kinds(digits_net: Target) -> None:
    with pytest.raises(UsageError, match="needs clean and adversarial images"):
        SharpnessDetector(digits_net, calibration="stump").fit(digits_target.images(30))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(3, 8, 8), "expected floating-point images"),
        (torch.zeros(3, 1, 8, 8, dtype=torch.uint8), "of uint8"),
        (torch.full((3, 1, 8, 8), 2.0), r"expected images in \[0, 1\]"),
        (torch.full((3, 1, 8, 8), float("nan")), r"expected images in \[0, 1\]"),
    ],
)
def test_wrong_images_are_refused(
    fitted: SharpnessDetector, images: torch.Tensor, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        fitted.predict(images)


def test_labels_are_1_and_minus_1(digits_net: Target) -> None:
    with pytest.raises(DataError, match="expected a 1"):
        SharpnessDetector(digits_net).fit(digits_target.images(40), y=np.zeros(40))


def test_too_few_images_say_how_many(digits_net: Target) -> None:
    with pytest.raises(UsageError, match=r"20 calibration images are too few .*39 are needed"):
        SharpnessDetector(digits_net, alpha=0.05).fit(digits_target.images(20))


class TestFile:
    def test_it_comes_back_the_same(
        self, fitted: SharpnessDetector, digits_net: Target, tmp_path: Path
    ) -> None:
        fitted.save(tmp_path / "sub" / "d.json")
        again = SharpnessDetector.load(tmp_path / "sub" / "d.json", digits_net)
        images = torch.cat([digits_target.images(100, 300), torch.rand(50, 1, 8, 8)])
        np.testing.assert_array_equal(again.predict(images), fitted.predict(images))
        np.testing.assert_array_equal(again.score_samples(images), fitted.score_samples(images))
        assert again.get_params() == fitted.get_params()

    def test_another_model_is_refused(self, fitted: SharpnessDetector, tmp_path: Path) -> None:
        fitted.save(tmp_path / "d.json")
        torch.manual_seed(3)
        from support.digits import digits_net as build

        other = prepare(make_target(build().eval(), "other", "here"), digits_target.images(4))
        with pytest.raises(DetectorError, match=r"fitted on digits \(weights .*, not on other"):
            SharpnessDetector.load(tmp_path / "d.json", other)

    def test_the_same_weights_surer_are_refused(
        self, fitted: SharpnessDetector, digits_net: Target, tmp_path: Path
    ) -> None:
        fitted.save(tmp_path / "d.json")
        surer = prepare(digits_net, digits_target.images(4), logit_scale=3.0)
        with pytest.raises(DetectorError, match="another --logit-scale or --head"):
            SharpnessDetector.load(tmp_path / "d.json", surer)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"format_version": 99}, "has format 99, written by a newer flatguard"),
            ({"kind": "pickle"}, "is no detector, or damaged: kind"),
            ({"extra": 1}, "is no detector, or damaged: extra"),
            ({"classes": {"-1": {"lower": 0, "upper": 1, "scores": [2, 1]}}}, "not in order"),
            ({"classes": {"-1": {"lower": 0, "upper": 1, "scores": []}}}, "damaged: classes"),
        ],
    )
    def test_damage_is_one_line(
        self,
        fitted: SharpnessDetector,
        digits_net: Target,
        tmp_path: Path,
        change: dict[str, object],
        message: str,
    ) -> None:
        file = tmp_path / "d.json"
        fitted.save(file)
        file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
        with pytest.raises(DetectorError, match=message) as caught:
            SharpnessDetector.load(file, digits_net)
        assert "\n" not in str(caught.value)

    def test_no_file(self, digits_net: Target, tmp_path: Path) -> None:
        with pytest.raises(DetectorError, match="make one with flatguard detect fit"):
            SharpnessDetector.load(tmp_path / "none.json", digits_net)


def test_it_does_not_depend_on_the_callers_state(
    digits_net: Target, fitted: SharpnessDetector
) -> None:
    images = digits_target.images(300)
    wanted = fitted.decision_function(images)
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        again = SharpnessDetector(digits_net, alpha=0.05).fit(images.clone())
        assert (again.decision_function(images) == wanted).all()
