r"""Finds the final linear layer, and proves by evaluation that it is the head.

A layer with output $h$ is the head of a model with output $z$ if, on every sample,
$z = a h + c$ with one global $a > 0$ and a shift $c$ that is equal across classes: then
softmax and argmax of $z$ are those of $a h$. Derivatives in the layer's W contain the factor, so
tr H is $a^2 \sum_j p_j (1 - p_j) \|\varphi\|^2$, and κ is that of a head with weights $aW$.
A layer with one output h, whose model is read as the two classes 0 and h, is the head
$W = (0, w)$ of these two classes.
Names and positions only sort the candidates; the evaluation decides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from flatguard.errors import ModelError
from flatguard.geometry.precision import wide
from flatguard.geometry.sharpness import log_weight_norm_squared
from flatguard.targets.linear_operations import is_wrapped

RELATIVE_TOLERANCE = 1e-4
"""Largest |z - a h - c| over the largest centred |z|; float32 needs about 1e-6."""

LinearLike = nn.Linear | nn.Conv2d

HeadListener = Callable[[Tensor | None, Tensor], None]
"""Receives the head's input, None if it came by keyword, and its output, in each forward pass."""


class FinalMap(Protocol):
    """The final linear map of a model, a layer or an operation; proven on real images."""

    @property
    def name(self) -> str:
        """The layer's name in the model, or the operation and where it runs."""

    @property
    def scale(self) -> float:
        """The global factor a between its output and the logits."""

    @property
    def tolerance(self) -> float:
        """The largest `relative_mismatch` in a call that it explains."""

    @property
    def weight(self) -> Tensor:
        """W, `(k, d)`, without the factor."""

    def log_weight_norm_squared(self) -> float:
        r"""$\log \|W\|_F^2$ of the current weights."""

    def watched(self, listener: HeadListener) -> AbstractContextManager[None]:
        """Call the listener in every forward pass inside."""


@dataclass(frozen=True)
class Head:
    """The final linear layer, proven on real images.

    Attributes:
        name: its name in `model.named_modules()`.
        module: an `nn.Linear`, or an `nn.Conv2d` with a 1×1 kernel on a 1×1 map.
        scale: the global factor a between its output and the logits.
        is_single: whether its one output is the logit of the second of two classes.
    """

    name: str
    module: LinearLike
    scale: float
    is_single: bool = False

    @property
    def tolerance(self) -> float:
        """The largest `relative_mismatch` in a call that the layer explains."""
        return RELATIVE_TOLERANCE

    @property
    def weight(self) -> Tensor:
        """W, `(k, d)`, of the layer as it is now; the first row of a single output is zero."""
        own = self.module.weight.flatten(1)
        return torch.cat([torch.zeros_like(own), own]) if self.is_single else own

    def log_weight_norm_squared(self) -> float:
        r"""$\log \|W\|_F^2$ of the layer's current weights."""
        return log_weight_norm_squared(self.weight)

    @contextmanager
    def watched(self, listener: HeadListener) -> Iterator[None]:
        """Call the listener whenever the layer runs, before any hook of the user."""

        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            if module is self.module:  # a copy of the model copies its hooks
                listener(
                    inputs[0] if inputs else None,
                    _of_two_classes(output) if self.is_single else output,
                )

        handle = self.module.register_forward_hook(hook, prepend=True)
        try:
            yield
        finally:
            handle.remove()


@dataclass(frozen=True)
class HeadSearch:
    """A proven head, or the reason why none was found."""

    head: FinalMap | None
    reason: str | None


def find_head(model: nn.Module, images: Tensor, name: str | None = None) -> HeadSearch:
    """Search the model's linear layers for its head; costs one forward pass.

    Args:
        model: in eval mode.
        images: at least one image; more images make a stronger proof.
        name: test this layer only.
    """
    modules = dict(model.named_modules())
    if name is not None and name not in modules:
        linear = [n for n, m in modules.items() if isinstance(m, LinearLike)]
        return HeadSearch(None, f"the model has no layer {name}; its last layers: {linear[-3:]}")
    layers = {name: modules[name]} if name is not None else modules
    candidates = {n: m for n, m in layers.items() if isinstance(m, LinearLike)}
    if not candidates:
        return HeadSearch(None, "the model has no linear layer that hooks can see")
    outputs: dict[str, list[Tensor]] = {}
    with _hooked(candidates, outputs), torch.no_grad():
        logits = model(images)
    reasons = []
    for candidate, seen in reversed(outputs.items()):
        if len(seen) != 1:
            reasons.append(f"layer '{candidate}' ran {len(seen)} times in one forward pass")
            continue
        output = None if is_wrapped(seen[0]) else as_matrix(seen[0])
        is_single = output is not None and output.shape[1] == 1 and logits.shape[1] == 2
        if output is not None and is_single:
            output = _of_two_classes(output)
        if output is None or output.shape != logits.shape:
            continue
        scale, mismatch = _fit_scale(logits, output)
        if scale > 0 and mismatch <= RELATIVE_TOLERANCE:
            return HeadSearch(Head(candidate, candidates[candidate], scale, is_single), None)
        reasons.append(
            f"the model's output is not that of its layer '{candidate}' times one positive factor "
            f"plus a shift (relative mismatch {mismatch:.1g}; does it end in a softmax?)"
        )
    return HeadSearch(None, reasons[0] if reasons else "no linear layer gives (n, classes)")


def as_matrix(x: Tensor) -> Tensor | None:
    """`(n, d)` from `(n, d)` or `(n, d, 1, 1)`; None for any other shape."""
    if x.ndim == 2:
        return x
    if x.ndim > 2 and x[0, 0].numel() == 1:
        return x.flatten(1)
    return None


def _of_two_classes(single: Tensor) -> Tensor:
    """`(n, 2)` logits, 0 and h, of the one output h of a layer."""
    column = single.reshape(-1, 1)
    return torch.cat([torch.zeros_like(column), column], dim=1)


@contextmanager
def inputs_of(head: FinalMap, attached: bool = False) -> Iterator[list[Tensor]]:
    """A list to which every forward pass adds the head's inputs, the features φ, `(n, d)`.

    Args:
        head: a proven head.
        attached: whether the features keep their graph, and with it the memory of the pass.

    Raises:
        ModelError: in a pass where the head's input is not one vector per sample.
    """
    seen: list[Tensor] = []

    def listener(given: Tensor | None, output: Tensor) -> None:
        features = None if given is None else as_matrix(given)
        if features is None:
            raise ModelError(f"the head {head.name} did not work on one vector a sample")
        seen.append(features if attached else features.detach().clone())

    with head.watched(listener):
        yield seen


def _fit_scale(logits: Tensor, head_output: Tensor) -> tuple[float, float]:
    """The factor a by least squares on centred rows, and the remaining relative mismatch."""
    z, h = _centred(logits), _centred(head_output)
    power = float((h * h).sum())
    if power == 0.0:
        return 0.0, float("inf")
    scale = float((z * h).sum()) / power
    # A factor within rounding of 1 is 1: most models return their head's output unchanged.
    scale = 1.0 if abs(scale - 1.0) < 1e-5 else scale
    return scale, float(relative_mismatch(logits, head_output, scale).max())


def relative_mismatch(logits: Tensor, head_output: Tensor, scale: float) -> Tensor:
    """max |z - a h - c| / max |z - mean z| of each row, `(n,)`; NaN where not finite."""
    z, h = _centred(logits), _centred(head_output)
    off = (z - scale * h).abs().amax(dim=1)
    return off / z.abs().amax(dim=1).clamp_min(torch.finfo(torch.float32).tiny)


def _centred(x: Tensor) -> Tensor:
    return wide(x) - wide(x).mean(dim=1, keepdim=True)


@contextmanager
def _hooked(candidates: dict[str, LinearLike], outputs: dict[str, list[Tensor]]) -> Iterator[None]:
    def remember(name: str) -> Any:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            if inputs:  # hooks do not receive inputs by keyword
                earlier = outputs.pop(name, [])
                # A copy: the model may write into it afterwards. The last to run is the last key.
                outputs[name] = [*earlier, output.detach().clone()]

        return hook

    # First, so that the layer's own output is seen, before any hook of the user changes it.
    handles = [m.register_forward_hook(remember(n), prepend=True) for n, m in candidates.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
