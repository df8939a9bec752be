"""Other papers' detectors against what their formulas say."""

import numpy as np
import pytest
import torch
from scipy import ndimage
from support import digits_target

from flatguard.detection.baselines import BASELINES, Baseline, TrainingImages
from flatguard.detection.baselines.feature_squeezing import (
    PATCH,
    SEARCH,
    STRENGTH,
    fewer_bits,
    median,
    non_local_means,
)
from flatguard.detection.baselines.lid import lid
from flatguard.detection.baselines.mahalanobis import Mahalanobis
from flatguard.detection.scores import forward_pass
from flatguard.errors import UsageError
from flatguard.targets import Target


def fitting() -> TrainingImages:
    images, labels = digits_target.images(120), digits_target.labels(120)
    noisy = (images + 0.05 * torch.randn(images.shape)).clamp(0, 1)
    return TrainingImages(images, labels, noisy, (images[:60] + 0.2).clamp(0, 1))


@pytest.mark.parametrize("kind", BASELINES, ids=lambda kind: kind.name)
def test_each_scores_every_image_and_again_the_same(
    digits_net: Target, kind: type[Baseline]
) -> None:
    baseline = kind(digits_net, 32, 5)
    baseline.fit(fitting())
    images = digits_target.images(50, 200)
    scores = baseline.score(images)
    assert scores.shape == (50,)
    assert torch.isfinite(scores).all()
    assert len(scores.unique()) > 1
    torch.testing.assert_close(baseline.score(images), scores)


@pytest.mark.parametrize("dimension", [2, 5, 10])
def test_lid_of_a_ball_is_its_dimension(dimension: int) -> None:
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(200, 4000, dimension, generator=generator)
    radii = torch.rand(200, 4000, 1, generator=generator) ** (1 / dimension)
    points = directions / directions.norm(dim=2, keepdim=True) * radii
    found = lid(points.norm(dim=2), 100)
    assert float(found.mean()) == pytest.approx(dimension, rel=0.1)


def test_lid_leaves_out_the_image_itself() -> None:
    distances = torch.tensor([[0.0, 1.0, 2.0, 3.0]])
    assert float(lid(distances, 3, skip=1)) == pytest.approx(float(lid(distances[:, 1:], 3)))


def test_lid_needs_neighbours(digits_net: Target) -> None:
    few = fitting()
    small = TrainingImages(few.images[:20], few.labels[:20], few.noisy[:20], few.adversarial)
    baseline = next(kind for kind in BASELINES if kind.name == "lid")(digits_net, 32, 0)
    with pytest.raises(UsageError, match="needs more than 20 images to learn from, got 20"):
        baseline.fit(small)


def test_squeezers_are_what_they_are_called() -> None:
    images = torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(1))
    assert len((fewer_bits(images) * 31).round().unique()) <= 32
    truth = ndimage.median_filter(images.numpy(), size=(1, 1, 2, 2), mode="nearest")
    np.testing.assert_array_equal(median(images).numpy(), truth)


def test_non_local_means_is_the_sum_it_is_defined_by() -> None:
    image = torch.rand(1, 3, 20, 20, generator=torch.Generator().manual_seed(2)) * 0.02
    row = column = 10
    half, reach = PATCH // 2, SEARCH // 2

    def patch(i: int, j: int) -> torch.Tensor:
        return image[0, :, i - half : i + half + 1, j - half : j + half + 1]

    total, weights = torch.zeros(3), 0.0
    for i in range(row - reach, row + reach + 1):
        for j in range(column - reach, column + reach + 1):
            # The patch around the other pixel moves with it: differences are taken pixel by pixel.
            d2 = (patch(row, column) - patch(i, j)).square().mean()
            weight = torch.exp(-d2 / STRENGTH**2)
            total, weights = total + weight * image[0, :, i, j], weights + float(weight)
    found = non_local_means(image)[0, :, row, column]
    torch.testing.assert_close(found, total / weights, rtol=1e-4, atol=1e-6)


def test_mahalanobis_is_the_dense_formula(digits_net: Target) -> None:
    given = fitting()
    baseline = Mahalanobis(digits_net, 64, 0)
    baseline.fit(given)
    with torch.no_grad():
        own = forward_pass(digits_net, given.images).features.double()
        new = forward_pass(digits_net, digits_target.images(10, 300)).features.double()
    means = torch.stack([own[given.labels == c].mean(dim=0) for c in range(10)])
    centred = own - means[given.labels]
    precision = torch.linalg.inv(centred.T @ centred + 1e-6 * torch.eye(own.shape[1]).double())
    apart = new[:, None] - means
    truth = 0.5 * torch.einsum("ncd,de,nce->nc", apart, precision, apart).amin(dim=1)
    torch.testing.assert_close(
        baseline.score(digits_target.images(10, 300)), truth, rtol=5e-2, atol=0
    )
