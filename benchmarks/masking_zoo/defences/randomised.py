"""Defences that draw anew at every call."""

from __future__ import annotations

import random

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class InputNoise(nn.Module):
    """Gaussian noise on the image."""

    def __init__(self, net: nn.Module, sigma: float):
        super().__init__()
        self.net, self.sigma = net, sigma

    def forward(self, x: Tensor) -> Tensor:
        """Logits of a noisy image."""
        logits: Tensor = self.net(x + self.sigma * torch.randn_like(x))
        return logits


class RandomResizePad(nn.Module):
    """A random smaller size, put at a random place (Xie et al. 2018)."""

    def __init__(self, net: nn.Module, smallest: int):
        super().__init__()
        self.net, self.smallest = net, smallest

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the moved image; one draw for the batch."""
        full = x.shape[-1]
        size = random.randint(self.smallest, full)
        small = F.interpolate(x, size=(size, size), mode="nearest")
        left, top = random.randint(0, full - size), random.randint(0, full - size)
        padded = F.pad(small, (left, full - size - left, top, full - size - top), value=0.5)
        logits: Tensor = self.net(padded)
        return logits


class RandomPhase(nn.Module):
    """Dithering: a small, fast wave of each pixel, with a new phase at every call."""

    def __init__(self, net: nn.Module, height: float, frequency: float):
        super().__init__()
        self.net = net
        self.height, self.frequency = height, frequency

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the dithered image."""
        phase = 6.2831853 * torch.rand_like(x)
        logits: Tensor = self.net(x + self.height * torch.sin(self.frequency * x + phase))
        return logits


class NoisyLogits(nn.Module):
    """Noise on the logits that depends on the image: a random fast wave at every call."""

    def __init__(self, net: nn.Module, height: float, frequency: float):
        super().__init__()
        self.net = net
        self.height, self.frequency = height, frequency

    def forward(self, x: Tensor) -> Tensor:
        """Logits plus a random wave."""
        flat = x.flatten(1)
        waves = torch.randn(flat.shape[1], 10, device=x.device) / flat.shape[1] ** 0.5
        out: Tensor = self.net(x) + self.height * torch.sin(self.frequency * (flat @ waves))
        return out


class NoisyScale(nn.Module):
    """Every pixel times a random factor around one."""

    def __init__(self, net: nn.Module, spread: float):
        super().__init__()
        self.net, self.spread = net, spread

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the image under uneven light."""
        light = 1 + self.spread * torch.randn_like(x)
        logits: Tensor = self.net(((x - 0.5) * light) + 0.5)
        return logits


class RandomMember(nn.Module):
    """One of several networks answers, by chance."""

    def __init__(self, nets: list[nn.Module]):
        super().__init__()
        self.nets = nn.ModuleList(nets)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of whoever was drawn."""
        logits: Tensor = self.nets[random.randrange(len(self.nets))](x)
        return logits


class LogitNoise(nn.Module):
    """Gaussian noise on the logits: the gradient is the network's own."""

    def __init__(self, net: nn.Module, sigma: float):
        super().__init__()
        self.net, self.sigma = net, sigma

    def forward(self, x: Tensor) -> Tensor:
        """Noisy logits."""
        logits: Tensor = self.net(x)
        return logits + self.sigma * torch.randn_like(logits)


class RandomShift(nn.Module):
    """The image moved by a few pixels in a random direction, each for itself."""

    def __init__(self, net: nn.Module, pixels: int):
        super().__init__()
        self.net, self.pixels = net, pixels

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the moved images."""
        n, _, height, width = x.shape
        padded = F.pad(x, (self.pixels,) * 4)
        places = torch.randint(0, 2 * self.pixels + 1, (n, 2)).tolist()
        moved = [
            p[:, a : a + height, b : b + width] for p, (a, b) in zip(padded, places, strict=True)
        ]
        logits: Tensor = self.net(torch.stack(moved))
        return logits


class RandomFlip(nn.Module):
    """Every other image is mirrored, by chance."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        turned = torch.rand(len(x), 1, 1, 1) < 0.5
        logits: Tensor = self.net(torch.where(turned, x.flip(-1), x))
        return logits


class PixelDropout(nn.Module):
    """Random pixels become grey (as in Cohen-style random ablation, Levine and Feizi 2020)."""

    def __init__(self, net: nn.Module, rate: float):
        super().__init__()
        self.net, self.rate = net, rate

    def forward(self, x: Tensor) -> Tensor:
        """Logits of what is left."""
        gone = torch.rand_like(x[:, :1]) < self.rate
        logits: Tensor = self.net(torch.where(gone, torch.full_like(x, 0.5), x))
        return logits


class Barrage(nn.Module):
    """Several weak random transformations in a random order (Raff et al. 2019)."""

    def __init__(self, net: nn.Module, strength: float):
        super().__init__()
        self.net, self.strength = net, strength

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the transformed image; one order for the batch."""
        stages = [self.noise, self.contrast, self.rounding, self.gamma]
        for stage in random.sample(stages, 3):
            x = stage(x)
        logits: Tensor = self.net(x)
        return logits

    def noise(self, x: Tensor) -> Tensor:
        """Uniform noise."""
        return x + self.strength * (2 * torch.rand_like(x) - 1)

    def contrast(self, x: Tensor) -> Tensor:
        """Stretched around the middle."""
        return 0.5 + (x - 0.5) * (1 + self.strength * (2 * random.random() - 1))

    def rounding(self, x: Tensor) -> Tensor:
        """A random number of grey levels, with the identity's gradient."""
        levels = random.randint(6, 20)
        return x + (torch.round(x * levels) / levels - x).detach()

    def gamma(self, x: Tensor) -> Tensor:
        """A random power."""
        return x.clamp(min=1e-3) ** (1 + self.strength * (2 * random.random() - 1))
