"""What all baselines share: a score for each image, the same again, in any batch."""

import pytest
import torch
from support import digits_target

from flatguard.detection.baselines import BASELINES, Baseline, TrainingImages, departures
from flatguard.detection.baselines.odds import _DRAWS, _NOISE
from flatguard.errors import ModelError
from flatguard.targets import Target
from flatguard.targets.target import make_target


@pytest.mark.parametrize("kind", BASELINES, ids=lambda kind: kind.name)
def test_each_scores_every_image_and_again_the_same(
    digits_net: Target, training: TrainingImages, kind: type[Baseline]
) -> None:
    baseline = kind(digits_net, 32, 5)
    baseline.fit(training)
    images = digits_target.images(50, 200)
    scores = baseline.score(images)
    assert scores.shape == (50,)
    assert scores.dtype == torch.float64
    assert torch.isfinite(scores).all()
    assert len(scores.unique()) > 1
    torch.testing.assert_close(baseline.score(images), scores)


def test_images_come_in_batches_and_errors_of_the_model_name_it(digits_net: Target) -> None:
    baseline = BASELINES[0](digits_net, 32, 0)
    images = digits_target.images(70)
    assert [len(batch) for batch in baseline.batches(images)] == [32, 32, 6]
    torch.testing.assert_close(torch.cat(list(baseline.batches(images))), images)
    broken = make_target(torch.nn.Linear(3, 2).eval(), "broken", "a test")
    with pytest.raises(ModelError, match="broken"):
        BASELINES[0](broken, 32, 0).logits(images)


def test_every_departure_from_a_paper_is_stated() -> None:
    stated = departures()
    assert set(stated) == {kind.name for kind in BASELINES}
    assert stated["odds"].startswith(f"{_DRAWS} draws of Gaussian noise of one size, {_NOISE:g};")
