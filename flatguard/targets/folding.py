"""Folds batch norm into the convolution, or linear layer, in front of it.

In eval mode, batch norm is a fixed linear map of each channel, so the layer in front of it can
have it in its weights: $W' = W \\gamma / \\sqrt{v + \\epsilon}$ and
$b' = (b - m) \\gamma / \\sqrt{v + \\epsilon} + \\beta$. The result differs by rounding.

One forward pass finds the pairs: the batch norm gets the very tensor that the layer returned, and
no other operation uses that tensor. Another image may take another way through a model that chooses
its way; the caller compares the logits.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def fold_batchnorm(model: nn.Module, images: Tensor) -> int:
    """Replace each foldable pair by one layer and an identity; the number of pairs.

    Args:
        model: in eval mode; it is changed.
        images: a few real images.

    Cost: one forward pass.
    """
    pairs = _pairs(model, images)
    for layer, norm in pairs:
        # The layer keeps its place and its identity, so that what refers to it goes on to work.
        folded: Any
        if isinstance(layer, nn.Linear):
            folded = fuse_linear_bn_eval(layer, norm)
        else:
            folded = fuse_conv_bn_eval(layer, norm)
        layer.weight, layer.bias = folded.weight, folded.bias
        for name, module in list(model.named_modules(remove_duplicate=False)):
            if module is norm:
                model.set_submodule(name, nn.Identity().eval())
    return len(pairs)


@dataclass(frozen=True)
class _Returned:
    """What a layer returned; it is kept, so that its identity stays its own."""

    layer: Any
    output: Tensor


class _Watch(TorchDispatchMode):
    """What one forward pass shows of layers and norms, and of the uses of the layers' outputs."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.returned: dict[int, _Returned] = {}
        self.uses: Counter[int] = Counter()
        self.calls: Counter[int] = Counter()
        self.pairs: list[tuple[_Returned, Any]] = []

    def layer_ran(self, layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        """A forward hook of layers; a linear one has its channels last, so it needs (n, d)."""
        self.calls[id(layer)] += 1
        if isinstance(output, Tensor) and (output.ndim == 2 or not isinstance(layer, nn.Linear)):
            self.returned[id(output)] = _Returned(layer, output)

    def norm_runs(self, norm: nn.Module, inputs: tuple[Any, ...]) -> None:
        """A forward pre-hook of norms."""
        self.calls[id(norm)] += 1
        found = self.returned.get(id(inputs[0])) if inputs else None
        if found is not None:
            self.pairs.append((found, norm))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count the operations that use an output."""
        given = {id(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        self.uses.update(given & self.returned.keys())
        return func(*args, **(kwargs or {}))

    def foldable(self) -> list[tuple[Any, Any]]:
        """The layers whose outputs all go to one norm, and to nothing else, with this norm."""
        alone = Counter(
            (found.layer, norm) for found, norm in self.pairs if self.uses[id(found.output)] == 1
        )
        return [
            (layer, norm)
            for (layer, norm), count in alone.items()
            if count == self.calls[id(layer)] == self.calls[id(norm)]
        ]


def _pairs(model: nn.Module, images: Tensor) -> list[tuple[Any, Any]]:
    watch, handles = _Watch(), []
    for module in model.modules():
        if not _is_plain(module):
            continue
        if type(module) in (*_CONVOLUTIONS, nn.Linear):
            handles.append(module.register_forward_hook(watch.layer_ran))
        elif type(module) in _NORMS and _has_statistics(module):
            handles.append(module.register_forward_pre_hook(watch.norm_runs))
    try:
        with torch.no_grad(), watch:
            model(images)
    finally:
        for handle in handles:
            handle.remove()
    return [pair for pair in watch.foldable() if _weights_are_its_own(model, pair[0])]


def _is_plain(module: nn.Module) -> bool:
    """Without hooks of the user or parametrisations, which see or make the layer's tensors."""
    return not parametrize.is_parametrized(module) and not any(
        getattr(module, name, None) for name in _HOOKS
    )


def _has_statistics(norm: nn.Module) -> bool:
    return not norm.training and getattr(norm, "running_mean", None) is not None


def _weights_are_its_own(model: nn.Module, layer: nn.Module) -> bool:
    """Whether no other module has the layer's weight, as tied layers do."""
    owners = [m for m in model.modules() if any(p is layer.weight for p in m._parameters.values())]
    return len(owners) == 1
