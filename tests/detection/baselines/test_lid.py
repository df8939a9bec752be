"""Local intrinsic dimensionality against points of a known dimension."""

import math
from dataclasses import replace

import pytest
import torch

from flatguard.detection.baselines import TrainingImages
from flatguard.detection.baselines.lid import Lid, lid
from flatguard.errors import UsageError
from flatguard.targets import Target


@pytest.mark.parametrize("dimension", [2, 5, 10])
def test_lid_of_a_ball_is_its_dimension(dimension: int) -> None:
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(200, 4000, dimension, generator=generator)
    radii = torch.rand(200, 4000, 1, generator=generator) ** (1 / dimension)
    points = directions / directions.norm(dim=2, keepdim=True) * radii
    found = lid(points.norm(dim=2), 100)
    assert float(found.mean()) == pytest.approx(dimension, rel=0.1)


def test_lid_of_three_distances_is_the_formula() -> None:
    found = lid(torch.tensor([[4.0, 1.0, 9.0, 2.0]]), 3)
    assert float(found) == pytest.approx(3 / math.log(8))


def test_lid_leaves_out_the_image_itself() -> None:
    distances = torch.tensor([[0.0, 1.0, 2.0, 3.0]])
    assert float(lid(distances, 3, skip=1)) == pytest.approx(float(lid(distances[:, 1:], 3)))


def test_lid_needs_neighbours(digits_net: Target, training: TrainingImages) -> None:
    small = replace(training, images=training.images[:20], labels=training.labels[:20])
    with pytest.raises(UsageError, match="needs more than 20 images to learn from, got 20"):
        Lid(digits_net, 32, 0).fit(small)


def test_it_separates_what_it_was_fitted_on(digits_net: Target, training: TrainingImages) -> None:
    baseline = Lid(digits_net, 32, 0)
    baseline.fit(training)
    clean, adversarial = (baseline.score(x) for x in (training.images[100:], training.adversarial))
    assert float(adversarial.mean()) > float(clean.mean()) + 1.0
