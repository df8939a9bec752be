"""Noise that is a function of the image: the same image always gets the same noise."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def hashed_noise(x: Tensor, size: int, seed: int = 3) -> Tensor:
    """`(n, size)` numbers with spread 1, from a projection of each image, without a gradient."""
    with torch.no_grad():
        flat = x.flatten(1).double()
        seeded = torch.Generator().manual_seed(seed)
        weights = torch.rand(flat.shape[1], generator=seeded, dtype=torch.float64)
        turns = torch.rand(size, generator=seeded, dtype=torch.float64)
        phase = 1e6 * (flat * weights).sum(dim=1, keepdim=True) * (1 + turns) + 6.3 * turns
        return (2**0.5 * torch.sin(phase)).to(x.dtype)


class HashedInputNoise(nn.Module):
    """Noise on the image, seeded by the image (a derandomised input noise)."""

    def __init__(self, net: nn.Module, sigma: float):
        super().__init__()
        self.net, self.sigma = net, sigma

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the noisy image."""
        noise = hashed_noise(x, x[0].numel()).view_as(x)
        logits: Tensor = self.net(x + self.sigma * noise)
        return logits


class HashedLogitNoise(nn.Module):
    """Noise on the logits, seeded by the image."""

    def __init__(self, net: nn.Module, sigma: float):
        super().__init__()
        self.net, self.sigma = net, sigma

    def forward(self, x: Tensor) -> Tensor:
        """Noisy logits."""
        logits: Tensor = self.net(x)
        return logits + self.sigma * hashed_noise(x, logits.shape[1])
