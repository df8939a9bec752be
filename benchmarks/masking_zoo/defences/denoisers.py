"""Filters in front of a network, with their gradient, without one, or with the identity's."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.masking_zoo.defences.optimising import CUT, STRAIGHT, UNROLLED

TRUE = UNROLLED
"""The filter's own gradient."""


def patches(x: Tensor) -> Tensor:
    """Each pixel's 3×3 neighbourhood, `(n, channels, 9, height, width)`."""
    n, channels, height, width = x.shape
    found = F.unfold(F.pad(x, (1, 1, 1, 1), "reflect"), 3)
    return found.view(n, channels, 9, height, width)


class Filtered(nn.Module):
    """A blend of the image and its filtered version, then the network."""

    def __init__(self, net: nn.Module, how: str, blend: float = 1.0):
        super().__init__()
        self.net, self.how, self.blend = net, how, blend

    def clean(self, x: Tensor) -> Tensor:
        """The filter alone."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the filtered image."""
        if self.how == TRUE:
            seen = self.blend * self.clean(x) + (1 - self.blend) * x
        else:
            with torch.no_grad():
                seen = self.blend * self.clean(x) + (1 - self.blend) * x
            seen = x + (seen - x).detach() if self.how == STRAIGHT else seen + 0.0 * x
        logits: Tensor = self.net(seen)
        return logits


class Median(Filtered):
    """Median smoothing (Xu et al. 2018); a median has a gradient: that of the chosen pixel."""

    def clean(self, x: Tensor) -> Tensor:
        """The median of each neighbourhood."""
        return patches(x).median(dim=2).values


class Bilateral(Filtered):
    """A mean over neighbours that look alike (Xie et al. 2019 compare such denoisers)."""

    def __init__(self, net: nn.Module, how: str, blend: float = 1.0, likeness: float = 0.1):
        super().__init__(net, how, blend)
        self.likeness = likeness

    def clean(self, x: Tensor) -> Tensor:
        """The weighted mean of each neighbourhood."""
        near = patches(x)
        weights = torch.exp(-((near - x[:, :, None]) ** 2) / (2 * self.likeness**2))
        return (weights * near).sum(dim=2) / weights.sum(dim=2)


class Reformed(Filtered):
    """What an autoencoder makes of the image (MagNet's reformer, Meng and Chen 2017)."""

    def __init__(self, net: nn.Module, denoiser: nn.Module, how: str, blend: float = 1.0):
        super().__init__(net, how, blend)
        self.denoiser = denoiser

    def clean(self, x: Tensor) -> Tensor:
        """The denoiser's image."""
        image: Tensor = self.denoiser(x)
        return image


__all__ = ["CUT", "STRAIGHT", "TRUE", "Bilateral", "Filtered", "Median", "Reformed"]
