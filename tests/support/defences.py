"""Defences as strangers would write them, around any network."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn


class Before(nn.Module):
    """Something happens to the images first."""

    def __init__(self, net: nn.Module, change: Callable[[Tensor], Tensor]):
        super().__init__()
        self.net, self.change = net, change

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(self.change(x))
        return logits


class After(Before):
    """Something happens to the logits."""

    def forward(self, x: Tensor) -> Tensor:
        return self.change(self.net(x))


class Negated(torch.autograd.Function):
    """The identity, with a backward pass that lies."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return -gradient


def bits(count: int) -> Callable[[Tensor], Tensor]:
    levels = 2**count - 1
    return lambda x: (x * levels).round() / levels


def jpeg(x: Tensor) -> Tensor:
    """Through NumPy and Pillow, with a gradient that is there and 0."""
    images = []
    for image in x.detach():
        pixels = (image.permute(1, 2, 0).numpy() * 255).round().astype("uint8")
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG", quality=90)
        decoded = np.array(Image.open(buffer))
        images.append(torch.from_numpy(decoded).permute(2, 0, 1).float() / 255)
    return torch.stack(images) + 0.0 * x


def noise(scale: float) -> Callable[[Tensor], Tensor]:
    return lambda x: x + scale * torch.randn_like(x)


class OffGrid(nn.Module):
    """Wrong about every image that is no 8-bit one, and raises where it is given no image.

    Args:
        net: is right about the others.
        factor: of its logits there; 0 makes them equal, so that the first class wins by a margin
            of 0.
    """

    def __init__(self, net: nn.Module, factor: float = -1.0):
        super().__init__()
        self.net, self.factor = net, factor

    def forward(self, x: Tensor) -> Tensor:
        if not len(x):
            raise ValueError("expected at least one image, got none")
        levels = 255 * x.detach()
        off = ((levels - levels.round()).abs() > 1e-3).flatten(1).any(dim=1)
        logits: Tensor = self.net(x)
        return torch.where(off[:, None], self.factor * logits, logits)
