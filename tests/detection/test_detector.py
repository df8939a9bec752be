"""The estimator after scikit-learn's conventions."""

import numpy as np
import pytest
import torch
import torchattacks
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from support import digits_target

from flatguard.detection import SharpnessDetector
from flatguard.detection.thresholds import ALL
from flatguard.errors import DataError, UsageError
from flatguard.targets import Target


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


def test_it_does_not_depend_on_the_callers_state(
    digits_net: Target, fitted: SharpnessDetector
) -> None:
    images = digits_target.images(300)
    wanted = fitted.decision_function(images)
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        again = SharpnessDetector(digits_net, alpha=0.05).fit(images.clone())
        assert (again.decision_function(images) == wanted).all()
