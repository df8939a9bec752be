"""Defences that optimise their input before they answer."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CUT, STRAIGHT, UNROLLED = "cut", "straight", "unrolled"
"""The gradient of the search: none, the identity's, or its own."""


class Searching(nn.Module):
    """Moves each image down an objective by normalised steps, then judges it."""

    def __init__(self, net: nn.Module, steps: int, size: float, how: str):
        super().__init__()
        self.net, self.steps, self.size, self.how = net, steps, size, how

    def objective(self, x: Tensor, start: Tensor) -> Tensor:
        """What is made smaller, one value a sample."""
        raise NotImplementedError

    def search(self, x: Tensor) -> Tensor:
        """The image where the search ends."""
        unrolled = self.how == UNROLLED
        with torch.enable_grad():
            inside = x if unrolled else x.detach()
            start = inside.detach()
            for _ in range(self.steps):
                if not inside.requires_grad:
                    inside = inside.clone().requires_grad_(True)
                value = self.objective(inside, start).sum()
                (step,) = torch.autograd.grad(value, inside, create_graph=unrolled)
                length = step.flatten(1).norm(dim=1).clamp(min=1e-12).view(-1, 1, 1, 1)
                inside = (inside - self.size * step / length).clamp(0, 1)
                if not unrolled:
                    inside = inside.detach()
        return inside

    def forward(self, x: Tensor) -> Tensor:
        """Logits of where the search ended."""
        found = self.search(x)
        if self.how == STRAIGHT:
            found = x + (found - x).detach()
        elif self.how == CUT:
            found = found.detach() + 0.0 * x
        logits: Tensor = self.net(found)
        return logits


class Purified(Searching):
    """Steps towards what a denoiser can reproduce (online purification, Shi et al. 2021)."""

    def __init__(self, net: nn.Module, denoiser: nn.Module, steps: int, size: float, how: str):
        super().__init__(net, steps, size, how)
        self.denoiser = denoiser

    def objective(self, x: Tensor, start: Tensor) -> Tensor:
        """The squared error of reproduction."""
        error: Tensor = (self.denoiser(x) - x).pow(2).flatten(1).sum(dim=1)
        return error


class Confident(Searching):
    """Steps towards the predicted class (anti-adversary layers, Alfarra et al. 2022)."""

    def objective(self, x: Tensor, start: Tensor) -> Tensor:
        """Cross-entropy with the first guess."""
        with torch.no_grad():
            guess = self.net(start).argmax(dim=1)
        return F.cross_entropy(self.net(x), guess, reduction="none")


class Hedged(Searching):
    """Steps away from all classes at once (Wu et al. 2021 attack the attack's result)."""

    def objective(self, x: Tensor, start: Tensor) -> Tensor:
        """Minus the summed cross-entropies of all classes."""
        return F.log_softmax(self.net(x), dim=1).sum(dim=1)


def searching(model: nn.Module, how: str) -> nn.Module:
    """The same defence with another gradient."""
    other = copy.copy(model)
    other.__dict__["how"] = how
    return other
