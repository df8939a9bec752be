"""Normalisation in front of a model, as a module of its own."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from flatguard.errors import ModelError


class Normalized(nn.Module):
    """Subtracts the mean and divides by the std of each channel, then calls the model."""

    mean: Tensor
    std: Tensor

    def __init__(self, model: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]):
        super().__init__()
        self.model = model
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Logits of images in [0, 1]."""
        if images.shape[1] != self.mean.shape[1]:
            raise ModelError(
                f"--mean and --std have {self.mean.shape[1]} numbers, but the images have "
                f"{images.shape[1]} channels"
            )
        logits: Tensor = self.model((images - self.mean) / self.std)
        return logits


def behind_normalisation(model: nn.Module) -> nn.Module:
    """The module that gets normalised images: they are cast behind a normalisation, not before."""
    while isinstance(model, Normalized):
        model = model.model
    return model
