"""The squeezers against their formulas."""

import torch
from support import digits_target

from flatguard.detection.baselines import TrainingImages
from flatguard.detection.baselines.feature_squeezing import (
    PATCH,
    SEARCH,
    STRENGTH,
    FeatureSqueezing,
    fewer_bits,
    median,
    non_local_means,
)
from flatguard.targets import Target


def test_squeezers_are_what_they_are_called() -> None:
    images = torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(1))
    assert len((fewer_bits(images) * 31).round().unique()) <= 32
    rows = torch.tensor([[1.0, 9.0, 2.0], [4.0, 3.0, 8.0]])
    upper_middle = torch.tensor([[1.0, 9.0, 9.0], [4.0, 4.0, 8.0]])
    torch.testing.assert_close(median(rows[None, None])[0, 0], upper_middle)


def test_non_local_means_is_the_sum_that_defines_it() -> None:
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


def test_the_score_is_the_largest_change_of_the_probabilities(
    digits_net: Target, training: TrainingImages
) -> None:
    images = digits_target.images(20, 200)
    squeezers = (fewer_bits, median, non_local_means)
    with torch.no_grad():
        plain, *squeezed = (
            digits_net.model(x).double().softmax(dim=1)
            for x in (images, *(squeeze(images) for squeeze in squeezers))
        )
    truth = torch.stack([(plain - p).abs().sum(dim=1) for p in squeezed]).amax(dim=0)
    torch.testing.assert_close(
        FeatureSqueezing(digits_net, 7, 0).score(images), truth, rtol=1e-4, atol=1e-5
    )
