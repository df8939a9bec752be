"""Models whose answer to an image depends on the other images of its batch, and a look-alike."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


class BatchStatistics(nn.Module):
    """Batch normalisation with the batch's own statistics at test time (Nado et al. 2020)."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = copy.deepcopy(net)
        for part in self.net.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.track_running_stats = False
                part.running_mean = part.running_var = None

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.net(x)
        return logits


class BatchCentred(nn.Module):
    """The batch's mean image is taken away and a fixed one put in its place (covariate shift)."""

    mean: Tensor

    def __init__(self, net: nn.Module, images: Tensor, share: float = 1.0):
        super().__init__()
        self.net, self.share = net, share
        self.register_buffer("mean", images.mean(dim=0, keepdim=True))

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the centred images."""
        logits: Tensor = self.net(x + self.share * (self.mean - x.mean(dim=0, keepdim=True)))
        return logits


class FrozenBatch(nn.Module):
    """A batch-dependent model whose other images are the clean ones: what is attacked in its place.

    Each batch stands beside as many clean images as there are, so that its own images hardly count.
    """

    clean: Tensor

    def __init__(self, model: nn.Module, clean: Tensor, times: int = 4):
        super().__init__()
        self.model = model
        self.register_buffer("clean", clean.repeat(times, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the batch beside clean images."""
        logits: Tensor = self.model(torch.cat([x, self.clean]))
        return logits[: len(x)]


class BatchScaled(nn.Module):
    """Logits over the batch's spread: every decision stays what it was."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        """Scaled logits."""
        z: Tensor = self.net(x)
        return z / z.detach().std().clamp(min=1e-3)
