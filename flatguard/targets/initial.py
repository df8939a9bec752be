"""The state of a model before its first call, for models that keep something between calls."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn

from flatguard.targets.head import FinalMap, Head


def initial_copy(model: nn.Module) -> nn.Module | None:
    """A copy in the model's state of now; None if the model cannot be copied.

    The copy and the model share their parameters, so it takes hardly any memory. Buffers,
    attributes and containers are its own.
    """
    try:
        return copy_of(model, list(model.parameters()))
    except Exception:  # a model may raise anything
        return None


def copy_of(model: nn.Module, shared: Iterable[Any] = ()) -> nn.Module:
    """A deep copy that shares these objects, and what has no copy: locks, files, generators.

    Raises:
        Exception: whatever the model raises where it cannot be copied in spite of that.
    """
    memo = {id(each): each for each in shared}
    try:
        # What deepcopy finds in its memo it does not copy.
        return copy.deepcopy(model, dict(memo))
    except Exception:  # a model may raise anything
        parts = parts_without_copy(model, memo)
        if any(isinstance(each, nn.Module) for each in parts):
            raise  # it would be shared with all that it remembers
        memo |= {id(each): each for each in parts}
    return copy.deepcopy(model, memo)


def parts_without_copy(value: Any, memo: Mapping[int, Any]) -> list[Any]:
    """The innermost attributes and items of a value that cannot be copied.

    Args:
        value: a module, or anything in one.
        memo: by identity, what is not looked at.

    Cost: each attribute is copied once a level.
    """
    if id(value) in memo or _has_copy(value, memo):
        return []
    found = [part for child in _children(value) for part in parts_without_copy(child, memo)]
    return found or [value]


def _has_copy(value: Any, memo: Mapping[int, Any]) -> bool:
    try:
        copy.deepcopy(value, dict(memo))
    except Exception:  # whatever it raises, it has none
        return False
    return True


def _children(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    if isinstance(value, list | tuple | set | frozenset):
        return list(value)
    return list(getattr(value, "__dict__", {}).values())


def with_scaled_head(initial: nn.Module, head: FinalMap) -> nn.Module:
    """The same copy with the weights of a head that was scaled in another copy."""
    assert isinstance(head, Head), "only a layer is scaled"
    layer: Any = initial.get_submodule(head.name)
    layer.weight, layer.bias = head.module.weight, head.module.bias
    return initial


class FreshEachCall(nn.Module):
    """Answers each call with a new copy of the initial state, as a new process would.

    It decides as the model does on its first call, and depends on no call before.

    Args:
        initial: from `initial_copy`; it is never called itself.

    Cost: a copy of everything but the parameters a call.
    """

    def __init__(self, initial: nn.Module):
        super().__init__()
        self.initial = initial
        parameters = {id(each): each for each in initial.parameters()}
        self.shared = [*parameters.values(), *parts_without_copy(initial, parameters)]
        self.eval()

    def forward(self, *inputs: Any, **keywords: Any) -> Any:
        """The answer of a model that was not called before."""
        return copy_of(self.initial, self.shared)(*inputs, **keywords)
