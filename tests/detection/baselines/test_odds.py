"""The odds test against its formula, with the same noise."""

import torch
from support import digits_target

from flatguard.detection.baselines import TrainingImages
from flatguard.detection.baselines.odds import _DRAWS, _NOISE, Odds
from flatguard.environment.randomness import seeded
from flatguard.targets import Target


def moved_log_odds(target: Target, images: torch.Tensor, seed: int) -> torch.Tensor:
    """How far z's log-odds against the predicted class move under the mean of noise."""
    with torch.no_grad(), seeded(seed, torch.device("cpu")):
        plain = target.model(images).double()
        draws = [
            target.model((images + _NOISE * torch.randn_like(images)).clamp(0, 1)).double()
            for _ in range(_DRAWS)
        ]
    change = torch.stack(draws).mean(dim=0) - plain
    return change - change.gather(1, plain.argmax(dim=1, keepdim=True))


def test_it_is_the_largest_standardised_change(
    digits_net: Target, training: TrainingImages
) -> None:
    baseline = Odds(digits_net, 200, 3)
    baseline.fit(training)
    new = digits_target.images(10, 300)
    with torch.no_grad():
        own = digits_net.model(training.images).argmax(dim=1)
        predicted = digits_net.model(new).argmax(dim=1)
    reference = moved_log_odds(digits_net, training.images, 3)
    change = moved_log_odds(digits_net, new, 3)
    for row, y, score in zip(change, predicted, baseline.score(new), strict=True):
        same = reference[own == y]
        standardised = (row - same.mean(dim=0)) / same.std(dim=0).clamp_min(1e-6)
        others = torch.arange(10) != y
        torch.testing.assert_close(score, standardised[others].max(), rtol=1e-6, atol=1e-6)


def test_a_class_without_two_images_takes_the_numbers_of_all(
    digits_net: Target, training: TrainingImages
) -> None:
    zeros = training.images[training.labels == 0]
    one_class = TrainingImages(zeros, training.labels[training.labels == 0], zeros, zeros)
    baseline = Odds(digits_net, 200, 3)
    baseline.fit(one_class)
    assert torch.isfinite(baseline.score(digits_target.images(30, 300))).all()
