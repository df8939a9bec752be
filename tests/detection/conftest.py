"""One trained network for all tests of detection."""

import pytest
import torch
from support import digits_target

from flatguard.detection.baselines import TrainingImages
from flatguard.targets import Target


@pytest.fixture(scope="session")
def digits_net() -> Target:
    return digits_target.target()


@pytest.fixture
def training() -> TrainingImages:
    images, labels = digits_target.images(120), digits_target.labels(120)
    generator = torch.Generator().manual_seed(0)
    noisy = (images + 0.05 * torch.randn(images.shape, generator=generator)).clamp(0, 1)
    return TrainingImages(images, labels, noisy, (images[:60] + 0.2).clamp(0, 1))
