"""What the reference attacks in place of a defended model: each knows one construction."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from benchmarks.masking_zoo.digits import KWinnersNet, ThermometerNet


class StraightThrough(nn.Module):
    """A front with its values, and the identity's gradient (BPDA, Athalye et al. 2018).

    Made from a defence with its network in `net`, whose front keeps the image's shape.
    """

    def __init__(self, defended: nn.Module):
        super().__init__()
        self.front = copy.copy(defended)
        self.front._modules = dict(defended._modules)
        self.net = self.front._modules["net"]
        self.front._modules["net"] = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """The defended model's logits."""
        with torch.no_grad():
            seen = self.front(x)
        assert self.net is not None
        logits: Tensor = self.net(x + (seen - x).detach())
        return logits


class LogitAverage(nn.Module):
    """The members of a vote, as the mean of their standardised logits."""

    def __init__(self, nets: list[nn.Module]):
        super().__init__()
        self.nets = nn.ModuleList(nets)

    def forward(self, x: Tensor) -> Tensor:
        """Mean over members of logits with spread 1."""
        found = [net(x) for net in self.nets]
        return torch.stack([z / z.std(dim=1, keepdim=True).detach() for z in found]).mean(dim=0)


class OpenWinners(KWinnersNet):
    """k-winners-take-all whose gradient reaches losers too."""

    def winners(self, h: Tensor) -> Tensor:
        """The winners' values, everybody's gradient."""
        return h + (super().winners(h) - h).detach()


class HalfOpenWinners(KWinnersNet):
    """k-winners-take-all as a steep sigmoid around the threshold, in value and gradient."""

    def winners(self, h: Tensor) -> Tensor:
        """Smoothly cut off."""
        flat = h.flatten(1)
        k = max(1, int(self.kept * flat.shape[1]))
        threshold = flat.topk(k, dim=1).values[:, -1:].detach()
        spread = flat.std(dim=1, keepdim=True).detach()
        return (flat * torch.sigmoid(4 * (flat - threshold) / spread)).view_as(h)


def open_winners(net: nn.Module) -> nn.Module:
    """The same weights, gradients for all."""
    return _same_weights(OpenWinners(_kept(net)), net)


def half_open_winners(net: nn.Module) -> nn.Module:
    """The same weights, smooth winners."""
    return _same_weights(HalfOpenWinners(_kept(net)), net)


def soft_thermometer(net: nn.Module) -> nn.Module:
    """The same weights behind sigmoids instead of comparisons."""
    return _same_weights(ThermometerNet(soft=15.0), net)


def _kept(net: nn.Module) -> float:
    assert isinstance(net, KWinnersNet)
    return net.kept


def _same_weights(fresh: nn.Module, net: nn.Module) -> nn.Module:
    fresh.load_state_dict(net.state_dict())
    return fresh.eval()
