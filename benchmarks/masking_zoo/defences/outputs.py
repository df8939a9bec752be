"""Defences that change what comes out of a network."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ScaledLogits(nn.Module):
    """Logits times a constant: the decision stays, cross-entropy saturates."""

    def __init__(self, net: nn.Module, factor: float):
        super().__init__()
        self.net = net
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        """Scaled logits."""
        logits: Tensor = self.net(x) * self.factor
        return logits


class Temperature(nn.Module):
    """Logits over a mild temperature, as calibration does."""

    temperature: Tensor

    def __init__(self, net: nn.Module, temperature: float):
        super().__init__()
        self.net = net
        self.register_buffer("temperature", torch.tensor(temperature))

    def forward(self, x: Tensor) -> Tensor:
        """Calibrated logits."""
        out: Tensor = self.net(x)
        return out.div(self.temperature)


class Probabilities(nn.Module):
    """Softmax inside the model."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.model = nn.Sequential(net, nn.Softmax(dim=1))

    def forward(self, x: Tensor) -> Tensor:
        """Probabilities."""
        p: Tensor = self.model(x)
        return p


class SharpProbabilities(nn.Module):
    """Softmax inside the model, in percent."""

    def __init__(self, net: nn.Module, percent: float = 100.0):
        super().__init__()
        self.net = net
        self.percent = percent

    def forward(self, x: Tensor) -> Tensor:
        """Percent."""
        return F.softmax(self.net(x), 1) * self.percent


class TanhLogits(nn.Module):
    """Logits squashed by tanh and blown up again."""

    def __init__(self, net: nn.Module, inner: float = 0.25, outer: float = 1000.0):
        super().__init__()
        self.net = net
        self.inner, self.outer = inner, outer

    def forward(self, x: Tensor) -> Tensor:
        """Squashed logits."""
        return self.outer * torch.tanh(self.inner * self.net(x))


class SigmoidLogits(nn.Module):
    """One score a class from a sigmoid, blown up."""

    def __init__(self, net: nn.Module, gain: float):
        super().__init__()
        self.backbone = net
        self.gain = gain

    def forward(self, x: Tensor) -> Tensor:
        """Squashed logits."""
        scores: Tensor = self.backbone(x).sigmoid()
        return scores.mul(self.gain)


class ClippedLogits(nn.Module):
    """Logits below the largest one, cut off at a floor."""

    def __init__(self, net: nn.Module, floor: float):
        super().__init__()
        self.net = net
        self.floor = floor

    def forward(self, x: Tensor) -> Tensor:
        """At most 0, at least the floor."""
        z = self.net(x)
        z = z - z.max(dim=1, keepdim=True).values
        clipped: Tensor = z.clamp(min=self.floor)
        return clipped


class RoundedLogits(nn.Module):
    """Logits rounded to a grid, so that nobody reads more than that off them."""

    def __init__(self, net: nn.Module, step: float):
        super().__init__()
        self.net, self.step = net, step

    def forward(self, x: Tensor) -> Tensor:
        """Logits on the grid."""
        return torch.round(self.net(x) / self.step) * self.step


class Vote(nn.Module):
    """Several networks vote; each has one voice."""

    def __init__(self, nets: list[nn.Module]):
        super().__init__()
        self.nets = nn.ModuleList(nets)

    def forward(self, x: Tensor) -> Tensor:
        """Shares of the votes; the first network breaks ties."""
        votes = [F.one_hot(net(x).argmax(dim=1), 10).float() for net in self.nets]
        votes[0] = votes[0] * 1.01
        return torch.stack(votes).mean(dim=0)


class LogitRipple(nn.Module):
    """Adds a small, fast wave of the input to the logits."""

    waves: Tensor

    def __init__(self, net: nn.Module, shape: tuple[int, ...], height: float, frequency: float):
        super().__init__()
        self.net = net
        self.height, self.frequency = height, frequency
        size = shape[0] * shape[1] * shape[2]
        seeded = torch.Generator().manual_seed(7)
        self.register_buffer("waves", torch.randn(size, 10, generator=seeded) / size**0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Logits plus waves."""
        phase = self.frequency * (x.flatten(1) @ self.waves)
        out: Tensor = self.net(x) + self.height * torch.sin(phase)
        return out
