"""Normalisation in front of a model."""

import pytest
import torch
from support.architectures import tiny

from flatguard.errors import ModelError
from flatguard.targets import make_target, prepare
from flatguard.targets.normalized import Normalized, behind_normalisation

IMAGES = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def test_the_channels_of_mean_and_images() -> None:
    model = Normalized(tiny(), (0.5,) * 3, (0.5,) * 3).eval()
    with pytest.raises(ModelError, match="have 3 numbers, but the images have 1 channels"):
        prepare(make_target(model, "t", "here"), IMAGES[:, :1])


def test_the_model_behind_all_normalisations() -> None:
    model = tiny()
    twice = Normalized(Normalized(model, (0.1,) * 3, (0.5,) * 3), (0.2,) * 3, (2.0,) * 3)
    assert behind_normalisation(twice) is behind_normalisation(model) is model
    expected = ((IMAGES - 0.2) / 2.0 - 0.1) / 0.5
    assert torch.allclose(twice(IMAGES), model(expected), atol=1e-6)
