"""Defences that change what goes into a network, always in the same way."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn


class RoundedBits(nn.Module):
    """Bit-depth reduction (Xu et al. 2018) with torch.round."""

    def __init__(self, net: nn.Module, bits: int):
        super().__init__()
        self.net = net
        self.levels = 2**bits - 1

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the rounded image."""
        logits: Tensor = self.net(torch.round(x * self.levels) / self.levels)
        return logits


class FlooredBits(nn.Module):
    """Bit-depth reduction by cutting off."""

    def __init__(self, net: nn.Module, bits: int):
        super().__init__()
        self.net = net
        self.steps = 2**bits

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the middle of each step."""
        x = (x * self.steps).floor().clamp(max=self.steps - 1)
        logits: Tensor = self.net((x + 0.5) / self.steps)
        return logits


class _Quantise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, levels: int) -> Tensor:
        return (x * levels + 0.5).long().to(x.dtype) / levels

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return torch.zeros_like(grads[0]), None


class Quantised(nn.Module):
    """Bit-depth reduction whose own backward is zero."""

    def __init__(self, net: nn.Module, bits: int):
        super().__init__()
        self.net, self.levels = net, 2**bits - 1

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the quantised image."""
        logits: Tensor = self.net(_Quantise.apply(x, self.levels))  # type: ignore[no-untyped-call]
        return logits


def through_jpeg(x: Tensor, quality: int) -> Tensor:
    """Each image written as JPEG by Pillow and read again."""
    arrays = (x.detach().cpu().clamp(0, 1).permute(0, 2, 3, 1).numpy() * 255).round()
    decoded = []
    for array in arrays.astype(np.uint8):
        buffer = io.BytesIO()
        Image.fromarray(array).save(buffer, format="JPEG", quality=quality)
        decoded.append(np.asarray(Image.open(buffer), dtype=np.float32) / 255)
    return torch.from_numpy(np.stack(decoded)).permute(0, 3, 1, 2).to(x)


class Jpeg(nn.Module):
    """JPEG compression (Dziugaite et al. 2016); its gradient ends in NumPy."""

    def __init__(self, net: nn.Module, quality: int):
        super().__init__()
        self.net, self.quality = net, quality

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the compressed image."""
        logits: Tensor = self.net(through_jpeg(x, self.quality))
        return logits


class _JpegFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, quality: int) -> Tensor:
        return through_jpeg(x, quality)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0] * 0, None


class JpegLayer(nn.Module):
    """JPEG as a layer, so that training code runs through it."""

    def __init__(self, net: nn.Module, quality: int):
        super().__init__()
        self.net, self.quality = net, quality

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the compressed image."""
        logits: Tensor = self.net(_JpegFunction.apply(x, self.quality))  # type: ignore[no-untyped-call]
        return logits


class HonestJpeg(nn.Module):
    """JPEG with a straight-through gradient: its author wants to be attacked."""

    def __init__(self, net: nn.Module, quality: int):
        super().__init__()
        self.net, self.quality = net, quality

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the compressed image."""
        logits: Tensor = self.net(x + (through_jpeg(x, self.quality) - x).detach())
        return logits


class MedianFilter(nn.Module):
    """Median smoothing (Xu et al. 2018) as preprocessing, blended, without gradients."""

    def __init__(self, net: nn.Module, blend: float = 0.5):
        super().__init__()
        self.net, self.blend = net, blend

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the smoothed image; what is left of the input keeps the graph alive."""
        with torch.no_grad():
            patches = F.unfold(F.pad(x, (1, 1, 1, 1), "reflect"), 3)
            n, channels, height, width = x.shape
            median = patches.view(n, channels, 9, height, width).median(dim=2).values
            smooth = self.blend * median + (1 - self.blend) * x
        logits: Tensor = self.net(smooth + 0.0 * x)
        return logits


class Detached(nn.Module):
    """Somebody forgot where the gradients come from."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.net(x.detach())
        return logits


class _Backwards(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, how: str) -> Tensor:
        ctx.how = how
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (grad,) = grads
        if ctx.how == "negated":
            return -grad, None
        return torch.randn_like(grad) * grad.abs().mean(), None


class LyingGradient(nn.Module):
    """The image as it is, but its gradient is turned round, or replaced by noise."""

    def __init__(self, net: nn.Module, how: str):
        super().__init__()
        self.net, self.how = net, how

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.net(_Backwards.apply(x, self.how))  # type: ignore[no-untyped-call]
        return logits


class Ripple(nn.Module):
    """Adds to each pixel a wave of that pixel: `x + height · sin(frequency · x)`."""

    def __init__(self, net: nn.Module, height: float, frequency: float):
        super().__init__()
        self.net = net
        self.height, self.frequency = height, frequency

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the rippled image."""
        logits: Tensor = self.net(x + self.height * torch.sin(self.frequency * x))
        return logits


class Sawtooth(nn.Module):
    """A staircase whose steps slope down: locally every gradient points the wrong way."""

    def __init__(self, net: nn.Module, steps: int, slope: float):
        super().__init__()
        self.net, self.steps, self.slope = net, steps, slope

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the staircase."""
        scaled = x * self.steps
        stair = scaled.detach().floor()
        rest = scaled - stair - 0.5
        logits: Tensor = self.net((stair + 0.5 - self.slope * rest) / self.steps)
        return logits


class SmoothRounding(nn.Module):
    """Rounding that is differentiable and never slopes down: an honest front."""

    def __init__(self, net: nn.Module, bits: int):
        super().__init__()
        self.net, self.levels = net, 2**bits - 1

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the softly rounded image."""
        turn = 2 * torch.pi * self.levels
        logits: Tensor = self.net(x - 0.9 * torch.sin(turn * x) / turn)
        return logits


class AntiAdversary(nn.Module):
    """Moves each image towards its predicted class before judging it (Alfarra et al. 2022)."""

    def __init__(self, net: nn.Module, steps: int = 2, size: float = 0.15):
        super().__init__()
        self.net, self.steps, self.size = net, steps, size

    def forward(self, x: Tensor) -> Tensor:
        """Logits where the search ended."""
        with torch.enable_grad():
            inside = x.detach().clone()
            guess = self.net(inside).argmax(dim=1)
            for _ in range(self.steps):
                inside.requires_grad_(True)
                loss = F.cross_entropy(self.net(inside), guess, reduction="sum")
                (step,) = torch.autograd.grad(loss, inside)
                inside = (inside - self.size * step.sign()).detach()
        logits: Tensor = self.net(x + (inside - x.detach()))
        return logits
