r"""Neighbourhoods of a model's weights that are invariant under rescaling of its layers.

Stutz et al. (2021), Eq. (2): $B_\xi(w) = \{w + \nu : \|\nu^{(l)}\|_2 \le \xi \|w^{(l)}\|_2
\text{ for all layers } l\}$. A layer is one parameter: a kernel and its bias are two, as in the
authors' published evaluation. Normalisation layers are excluded, as there: their scales and shifts
belong to the layer before. If a layer is multiplied by a factor and a later one divided by it,
every $\nu^{(l)}$ grows with its layer, so the perturbed models stay the same functions.

Directions for landscapes are normalised by filter (Li et al. 2018): each row of a kernel, which
produces one output channel, gets a random row of its own length; biases do not move.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from flatguard.errors import ModelError, one_line
from flatguard.geometry.precision import wide, wide_type

Weights = dict[str, Tensor]
"""Layers by name: a model's weights in their own type, or a step from them in float64."""

_NORMALISATIONS = (_NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)
_NAMED_SO = re.compile(r"Norm(Act)?(\dd)?$")
"""Third-party normalisation layers are recognised by the name of their class."""


def layers_of(model: nn.Module) -> Weights:
    """Every floating-point parameter outside normalisation layers, detached, not copied."""
    owners = dict(model.named_modules())
    return {
        name: weight.detach()
        for name, weight in model.named_parameters()
        if weight.is_floating_point() and not _normalises(owners[name.rpartition(".")[0]])
    }


def _normalises(module: nn.Module) -> bool:
    named_so = _NAMED_SO.search(type(module).__name__) is not None
    return isinstance(module, _NORMALISATIONS) or named_so


def on_sphere(weights: Weights, xi: float, generator: torch.Generator) -> Weights:
    """A uniformly random ν with ‖ν‖ = ξ‖w‖ in every layer: the rim of the ball.

    Args:
        weights: as `layers_of` gives them.
        xi: the relative radius.
        generator: on the CPU, so that every device gets the same numbers.
    """
    return {
        name: _of_length(_normal(weight, generator), xi * _length(weight))
        for name, weight in weights.items()
    }


def in_ball(weights: Weights, xi: float, generator: torch.Generator) -> Weights:
    """A random ν of the ball: in each layer a uniform direction and a uniform length."""
    rim = on_sphere(weights, xi, generator)
    shares = torch.rand(len(rim), generator=generator, dtype=torch.float64).tolist()
    return {name: share * rim[name] for name, share in zip(rim, shares, strict=True)}


def filter_normalised(weights: Weights, generator: torch.Generator) -> Weights:
    """A random direction whose every filter is as long as the model's own; biases get zeros.

    Li et al. (2018), Section 4. A filter is a row of a kernel, which produces one output channel.
    """
    found = {}
    for name, weight in weights.items():
        rows = _normal(weight, generator)
        if weight.ndim < 2:
            found[name] = torch.zeros_like(rows)
            continue
        rows = rows.flatten(1)
        factors = wide(weight).flatten(1).norm(dim=1) / rows.norm(dim=1)
        found[name] = (rows * factors[:, None]).view_as(weight)
    return found


def project(step: Weights, weights: Weights, xi: float) -> Weights:
    """The nearest ν within the ball."""
    found = {}
    for name, nu in step.items():
        radius = xi * _length(weights[name])
        inside = bool(_length(nu) <= radius)
        found[name] = nu if inside else _of_length(nu, radius)
    return found


def steepest(gradient: Weights, weights: Weights) -> Weights:
    """The gradient, scaled in every layer to the length of the weights; 0 if 0 or not finite."""
    return {name: _of_length(wide(g), _length(weights[name])) for name, g in gradient.items()}


def _length(x: Tensor) -> Tensor:
    length: Tensor = wide(x).norm()
    return length


def _normal(weight: Tensor, generator: torch.Generator) -> Tensor:
    drawn = torch.randn(weight.shape, generator=generator, dtype=torch.float64)
    return drawn.to(weight.device, wide_type(weight))


def _of_length(direction: Tensor, length: Tensor) -> Tensor:
    """The direction, scaled to this length; zeros if it is 0 or not finite."""
    largest = direction.abs().max() if direction.numel() else length.new_zeros(())
    if not bool(torch.isfinite(largest)) or not bool(largest > 0):
        return torch.zeros_like(direction)
    even = direction / largest  # its square may underflow
    found: Tensor = even * (length / even.norm())
    return found


class Movable:
    """A copy of a model whose weights can be moved to w + ν. The model itself never changes.

    Args:
        model: in eval mode.

    Raises:
        ModelError: the model cannot be copied, or has no weights to perturb.

    Attributes:
        weights: w, of the layers that can be moved.
    """

    def __init__(self, model: nn.Module):
        try:
            self._copy = copy.deepcopy(model).requires_grad_(False)
        except Exception as error:  # a user's model may raise anything
            raise ModelError(
                f"perturbing weights needs a copy of the model, and copying fails: "
                f"{type(error).__name__}: {one_line(error)}"
            ) from error
        self._layers = layers_of(self._copy)
        if not self._layers:
            raise ModelError("this model has no weights outside its normalisation layers")
        self.weights = {name: weight.clone() for name, weight in self._layers.items()}

    @contextmanager
    def at(self, step: Weights) -> Iterator[nn.Module]:
        """The copy at w + ν, summed in float64; afterwards w is restored, bit for bit."""
        try:
            for name, nu in step.items():
                weight = self.weights[name]
                self._layers[name].copy_((wide(weight) + nu).to(weight.dtype))
            yield self._copy
        finally:
            for name, weight in self.weights.items():
                self._layers[name].copy_(weight)

    @contextmanager
    def differentiable(self) -> Iterator[Weights]:
        """The copy's layers as leaves for gradients, at its current position."""
        leaves: Weights = {
            name: weight for name, weight in self._copy.named_parameters() if name in self._layers
        }
        for leaf in leaves.values():
            leaf.requires_grad_(True)
        try:
            yield leaves
        finally:
            for leaf in leaves.values():
                leaf.requires_grad_(False)
