"""Defences between a network's layers: sparsified, quantised and partly detached features."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


def head_of(net: nn.Module) -> tuple[nn.Module, nn.Linear]:
    """A copy of the network without its last linear layer, and that layer."""
    body = copy.deepcopy(net)
    name, head = [(n, m) for n, m in body.named_modules() if isinstance(m, nn.Linear)][-1]
    parent, _, last = name.rpartition(".")
    setattr(body.get_submodule(parent), last, nn.Identity())
    return body, head


class MeanSparse(nn.Module):
    """Values near their channel's mean become that mean (Amini et al. 2024).

    Attributes:
        width: of the band around the mean, in standard deviations of the channel.
        straight: lets the gradient of what was flattened pass.
        steepness: makes the band's edges sigmoids of this steepness; 0 is a hard band.
    """

    mean: Tensor
    spread: Tensor

    def __init__(self, width: float, straight: bool):
        super().__init__()
        self.width, self.straight, self.learning = width, straight, True
        self.steepness = 0.0
        self.register_buffer("mean", torch.zeros(1))
        self.register_buffer("spread", torch.ones(1))

    def forward(self, h: Tensor) -> Tensor:
        """What is left of the activations."""
        if self.learning:
            axes = [axis for axis in range(h.dim()) if axis != 1]
            self.mean, self.spread = h.mean(axes, keepdim=True), h.std(axes, keepdim=True)
            return h
        distance = (h - self.mean).abs() / self.spread - self.width
        if self.steepness:
            kept: Tensor = torch.sigmoid(self.steepness * distance)
            return self.mean + kept * (h - self.mean)
        flat = torch.where(distance <= 0, self.mean, h)
        return h + (flat - h).detach() if self.straight else flat


def mean_sparse(net: nn.Module, images: Tensor, width: float, straight: bool = False) -> nn.Module:
    """The network with a stage before each activation, which has its means from these images."""
    net = copy.deepcopy(net)
    kinds = (nn.BatchNorm2d, nn.Conv2d)
    if any(isinstance(part, nn.BatchNorm2d) for part in net.modules()):
        kinds = (nn.BatchNorm2d,)  # type: ignore[assignment]
    stages = []
    for name, part in list(net.named_modules()):
        if isinstance(part, kinds):
            parent, _, last = name.rpartition(".")
            stages.append(MeanSparse(width, straight))
            setattr(net.get_submodule(parent), last, nn.Sequential(part, stages[-1]))
    with torch.no_grad():
        net.eval()(images)
    for stage in stages:
        stage.learning = False
    return net


def with_straight_stages(net: nn.Module) -> nn.Module:
    """The same network whose stages let every gradient pass."""
    net = copy.deepcopy(net)
    for part in net.modules():
        if isinstance(part, MeanSparse | QuantisedFeatures | PartlyDetached):
            part.straight = True
    return net


def with_soft_bands(net: nn.Module, steepness: float) -> nn.Module:
    """The same network with mean-centred bands whose edges are smooth."""
    net = copy.deepcopy(net)
    for part in net.modules():
        if isinstance(part, MeanSparse):
            part.steepness = steepness
    return net


class QuantisedFeatures(nn.Module):
    """Some of the last features are rounded to a grid (Rakin et al. 2018 quantise activations)."""

    def __init__(self, net: nn.Module, step: float, share: float = 1.0, straight: bool = False):
        super().__init__()
        self.body, self.head = head_of(net)
        self.step, self.share, self.straight = step, share, straight

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the quantised features."""
        h = self.body(x)
        grid = torch.round(h / self.step) * self.step
        if self.straight:
            grid = h + (grid - h).detach()
        rounded = round(self.share * h.shape[1])
        logits: Tensor = self.head(torch.cat([grid[:, :rounded], h[:, rounded:]], dim=1))
        return logits


class PartlyDetached(nn.Module):
    """Some of the last features pass without their gradient."""

    def __init__(self, net: nn.Module, share: float, straight: bool = False):
        super().__init__()
        self.body, self.head = head_of(net)
        self.share, self.straight = share, straight

    def forward(self, x: Tensor) -> Tensor:
        """Logits of all features."""
        h = self.body(x)
        cut = 0 if self.straight else round(self.share * h.shape[1])
        logits: Tensor = self.head(torch.cat([h[:, :cut].detach(), h[:, cut:]], dim=1))
        return logits


class MeanOf(nn.Module):
    """The mean logits of several networks; the first `detached` of them have no gradient."""

    def __init__(self, nets: list[nn.Module], detached: int = 0):
        super().__init__()
        self.nets = nn.ModuleList(nets)
        self.detached = detached

    def forward(self, x: Tensor) -> Tensor:
        """Mean logits."""
        found = [net(x.detach()).detach() for net in self.nets[: self.detached]]
        found += [net(x) for net in self.nets[self.detached :]]
        return torch.stack(found).mean(dim=0)
