"""Gradients that hooks change on their way back; every answer stays as it is.

A changed gradient is a shattered one in the words of Athalye et al. (2018). The honest hooks only
look, or scale by a positive number.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

Change = Callable[[Tensor], Tensor]


def mirrored(grad: Tensor) -> Tensor:
    """Each image's gradient, left for right."""
    return grad.flip(-1)


def drowned(grad: Tensor) -> Tensor:
    """The gradient under noise that is five times as large."""
    return grad + 5 * grad.pow(2).mean().sqrt() * torch.randn_like(grad)


def mostly_negated(grad: Tensor) -> Tensor:
    """The smaller half of the values negated, the larger half away: never the right way."""
    small = grad.abs() <= grad.abs().flatten(1).median(dim=1).values.view(-1, 1, 1, 1)
    return torch.where(small, -grad, torch.zeros_like(grad))


def shrunk(grad: Tensor) -> Tensor:
    """A thousandth: no attack that uses signs or normalised steps sees a difference."""
    return grad * 1e-3


def clipped(grad: Tensor) -> Tensor:
    """Each image's gradient with a norm of at most one."""
    norm = grad.flatten(1).norm(dim=1).clamp(min=1.0)
    short: Tensor = grad / norm.view(-1, *[1] * (grad.dim() - 1))
    return short


def looked_at(grad: Tensor) -> Tensor:
    """As it is; a dashboard may have its norm."""
    grad.norm()
    return grad


class TensorHook(nn.Module):
    """A hook on the image's tensor."""

    def __init__(self, net: nn.Module, change: Change):
        super().__init__()
        self.net, self.change = net, change
        self.named = change.__name__

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        inside = x + 0.0
        if inside.requires_grad:
            inside.register_hook(self.change)
        logits: Tensor = self.net(inside)
        return logits


class ModuleHook(nn.Module):
    """A full backward hook on a module in front of the network."""

    def __init__(self, net: nn.Module, change: Change):
        super().__init__()
        self.net = net
        self.front = _Front(change)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.net(self.front(x))
        return logits


class _Front(nn.Module):
    def __init__(self, change: Change):
        super().__init__()
        self.change, self.named = change, change.__name__
        self.register_full_backward_hook(self.hook)

    def forward(self, x: Tensor) -> Tensor:
        return x * 1.0

    def hook(
        self, module: nn.Module, inside: tuple[Tensor, ...], outside: tuple[Tensor, ...]
    ) -> tuple[Tensor, ...]:
        return tuple(self.change(grad) for grad in inside)
