"""The same function with other weights: layers multiplied, and the factor taken back after them.

Stutz et al. (2021), Figure 4, show a model beside its ×2 and ×0.5 variants: a measure of
flatness must not tell them apart. Here a rescaling counts only if an evaluation proves it: the
logits do not change. Two kinds are tried, in the order of execution:

- a convolution or linear layer whose output goes into a batch normalisation: its weights and bias
  times c, the running mean times c, and the running variance so that the normalised output stays;
- two such layers after one another with something positively homogeneous between them (ReLU,
  pooling, flattening): the first times c, the second's weights divided by c.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

TOLERANCE = 1e-3
"""How far logits may move, as a share of their spread: float32 rounding through many layers."""


@dataclass(frozen=True)
class Rescaled:
    """A model that computes the same function.

    Attributes:
        model: a copy.
        layers: the names of the layers that were multiplied.
        moved: by how much the logits moved at most, as a share of their spread.
    """

    model: nn.Module
    layers: tuple[str, ...]
    moved: float


def rescaled(model: nn.Module, images: Tensor, factor: float) -> Rescaled:
    """Multiply as many layers as keep the function, each tried on these images.

    Args:
        model: in eval mode.
        images: a few, on the model's device.
        factor: c, positive.

    Returns:
        With no `layers` where nothing could be rescaled.

    Cost: about two forward passes a layer.
    """
    twin = copy.deepcopy(model)
    logits = _logits(twin, images)
    kept: list[str] = []
    touched: set[nn.Module] = set()
    for name, change in _changes(twin, images, factor):
        if touched & {change.layer, change.undo}:
            continue  # a factor that is taken back where another begins would cancel it
        before = copy.deepcopy(change.state)
        change.apply()
        if _moved(logits, _logits(twin, images)) <= TOLERANCE:
            kept.append(name)
            touched |= {change.layer, change.undo}
            continue
        with torch.no_grad():
            for tensor, old in zip(change.state, before, strict=True):
                tensor.copy_(old)
    return Rescaled(twin, tuple(kept), _moved(logits, _logits(twin, images)))


@dataclass(frozen=True)
class _Change:
    """One rescaling: a layer, what undoes it, and the factor."""

    layer: nn.Module
    undo: nn.Module
    factor: float

    @property
    def state(self) -> list[Tensor]:
        """Every tensor that it may touch."""
        return [
            value
            for module in (self.layer, self.undo)
            for value in module.state_dict(keep_vars=True).values()
        ]

    def apply(self) -> None:
        c = self.factor
        with torch.no_grad():
            for own in (self.layer.weight, self.layer.bias):
                if isinstance(own, Tensor):
                    own.mul_(c)
            if not isinstance(self.undo, _BatchNorm):
                assert isinstance(self.undo.weight, Tensor)
                self.undo.weight.div_(c)
            elif self.undo.running_mean is not None and self.undo.running_var is not None:
                self.undo.running_mean.mul_(c)
                # (c²(σ² + e) - e) + e is c² times what the normalisation divided by before.
                self.undo.running_var.add_(self.undo.eps).mul_(c * c).sub_(self.undo.eps)


def _changes(model: nn.Module, images: Tensor, factor: float) -> Iterator[tuple[str, _Change]]:
    calls = _calls(model, images)
    for index, (name, module) in enumerate(calls):
        if not isinstance(module, (_ConvNd, nn.Linear)):
            continue
        following = [other for _, other in calls[index + 1 :]]
        if following and calls.count((name, module)) == 1:
            yield name, _Change(module, following[0], factor)


def _calls(model: nn.Module, images: Tensor) -> list[tuple[str, nn.Module]]:
    """Layers with weights in the order in which they are executed."""
    met: list[tuple[str, nn.Module]] = []

    def noting(name: str) -> Any:
        return lambda module, *_: met.append((name, module))

    handles = [
        module.register_forward_hook(noting(name))
        for name, module in model.named_modules()
        if isinstance(module, (_ConvNd, nn.Linear, _BatchNorm))
    ]
    try:
        _logits(model, images)
    finally:
        for handle in handles:
            handle.remove()
    return met


def _logits(model: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad():
        logits: Tensor = model(images)
    return logits.double()


def _moved(before: Tensor, after: Tensor) -> float:
    spread = float(before.max() - before.min()) or 1.0
    moved = float((after - before).abs().max()) / spread
    return moved if moved == moved else float("inf")
