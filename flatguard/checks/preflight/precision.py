"""How far a model in another precision than float32 is from its float32 copy."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from flatguard.checks.preflight.calls import Caller, difference
from flatguard.checks.preflight.facts import Precision
from flatguard.errors import one_line
from flatguard.targets.hooks import hook_of
from flatguard.targets.initial import copy_of
from flatguard.targets.outputs import Reading
from flatguard.targets.precision import name_of, own_precision

_ITSELF = "its forward converts to {} itself, in a float32 copy as well"


def measure_precision(caller: Caller, images: Tensor, logits: Tensor) -> Precision | None:
    """Compare the model with its float32 copy; None for a model in float32.

    Args:
        caller: calls the model.
        images: `(n, ...)`, clean.
        logits: the model's own for them.

    Cost: a copy of the model, and a forward pass of it over the images.
    """
    name = precision_of(caller.model)
    if name is None:
        return None
    try:
        copied = copy_of(caller.model).float()
        returned: list[torch.dtype] = []
        _watch_type(copied, returned)
        other = caller.logits(images, model=copied).cpu()
    except Exception as error:  # a model may raise anything in another precision
        return Precision(name=name, unmeasured=f"{type(error).__name__}: {one_line(error)}")
    narrow = [dtype for dtype in returned if dtype.itemsize < 4]
    if narrow:
        return Precision(name=name, unmeasured=_ITSELF.format(name_of(narrow[0])))
    largest = float((logits.double() - other.double()).abs().amax())
    return Precision(
        name=name,
        largest=largest if largest < float("inf") else None,
        difference=difference(logits, other),
    )


def precision_of(model: nn.Module) -> str | None:
    """The precision of the model's parameters, or of what it returns; None for float32."""
    names = set(own_precision(model))
    reading = hook_of(model, Reading)
    if reading is not None and reading.dtype.itemsize < 4:
        names.add(name_of(reading.dtype))
    return " and ".join(sorted(names)) or None


def _watch_type(model: nn.Module, returned: list[torch.dtype]) -> None:
    """Note the types that the model itself returns, before they are read."""
    reading = hook_of(model, Reading)

    def watch(module: nn.Module, inputs: Any, output: Any) -> None:
        found = output if reading is None else reading.tensor_of(output)
        returned.append(found.dtype)

    model.register_forward_hook(watch, prepend=True)
