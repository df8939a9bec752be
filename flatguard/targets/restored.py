"""Restores the caller's model: mode, weights, gradients, flags, hooks, device and attributes."""

from __future__ import annotations

import copy
import random
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from flatguard.targets.parts import GENERATORS, REGISTERED, parts_of, plain_attributes

_HOOKS = (
    "_forward_hooks", "_forward_hooks_with_kwargs", "_forward_hooks_always_called",
    "_forward_pre_hooks", "_forward_pre_hooks_with_kwargs", "_backward_hooks",
    "_backward_pre_hooks",
)  # fmt: skip
_KEPT = (list, dict, set, deque, np.ndarray, *GENERATORS)
_MISSING = object()


@contextmanager
def restored(*models: object) -> Iterator[None]:
    """Restore the models at the end, also after an error.

    Restored are, for every module, its mode, hooks, submodules, tensors and plain attributes; for
    every tensor, its values, device, `requires_grad` and `.grad` (the same object with the same
    values); the content of lists, dicts, sets and arrays; the state of random generators. Inside,
    no tensor has a `.grad`. Included is all that `parts_of` finds; other objects, such as instances
    of a class of the user's own, are not searched.

    Args:
        *models: modules; other values, such as names, are ignored.

    Cost: a copy of all weights in host memory, and one comparison at the end.
    """
    with ExitStack() as stack:
        for model in models:
            if isinstance(model, nn.Module):
                stack.enter_context(_restored(model, values=True))
        yield


@contextmanager
def restored_but_values(model: nn.Module) -> Iterator[None]:
    """As `restored`, but changes of values are kept: the weights may be trained inside."""
    with _restored(model, values=False):
        yield


@contextmanager
def _restored(model: nn.Module, values: bool) -> Iterator[None]:
    held = [part.value for part in parts_of(model)]
    # The shape of a lazy module is set by its first call, permanently.
    modules = [each for each in held if isinstance(each, nn.Module) and not _is_lazy(each)]
    tensors = [each for each in held if isinstance(each, Tensor) and not is_lazy(each)]
    others = [_OtherBefore.of(each) for each in held if isinstance(each, _KEPT)] if values else []
    of_modules = [_ModuleBefore.of(module, values) for module in modules]
    of_tensors = [_TensorBefore.of(tensor, values) for tensor in tensors]
    try:
        for tensor in tensors:
            if tensor.is_leaf:
                tensor.grad = None
        yield
    finally:
        for other in others:
            other.restore()
        for module in of_modules:
            module.restore()
        for before in of_tensors:
            before.restore()


def _is_lazy(module: nn.Module) -> bool:
    return any(is_lazy(each) for each in module._parameters.values() if each is not None)


@dataclass(frozen=True)
class _ModuleBefore:
    module: nn.Module
    training: bool
    hooks: dict[str, dict[Any, Any]]
    registered: dict[str, dict[str, Any]]
    plain: dict[str, object]
    all_plain: bool

    @classmethod
    def of(cls, module: nn.Module, values: bool) -> _ModuleBefore:
        held = {} if isinstance(module, torch.jit.ScriptModule) else vars(module)
        return cls(
            module,
            module.training,
            {name: dict(held[name]) for name in _HOOKS if name in held},
            {name: dict(held[name]) for name in REGISTERED if name in held},
            {
                name: value
                for name, value in plain_attributes(module).items()
                if values or isinstance(value, Tensor)
            },
            values,
        )

    def restore(self) -> None:
        held = vars(self.module)
        if self.module.training != self.training:
            self.module.training = self.training
        for name, before in self.hooks.items():
            if list(held[name].items()) != list(before.items()):
                held[name].clear()  # the same dict: the handles of the caller's hooks refer to it
                held[name].update(before)
        for name, parts in self.registered.items():
            if [(key, id(part)) for key, part in held[name].items()] != [
                (key, id(part)) for key, part in parts.items()
            ]:
                held[name].clear()
                held[name].update(parts)
        if self.all_plain:
            for key in plain_attributes(self.module):
                if key not in self.plain:
                    del held[key]
        for key, value in self.plain.items():
            if held.get(key, _MISSING) is not value:
                held[key] = value


@dataclass(frozen=True)
class _OtherBefore:
    """A container, an array or a random generator in a plain attribute, and its content."""

    value: Any
    content: Any

    @classmethod
    def of(cls, value: Any) -> _OtherBefore:
        if isinstance(value, torch.Generator):
            return cls(value, value.get_state())
        if isinstance(value, np.random.Generator):
            return cls(value, value.bit_generator.state)
        if isinstance(value, np.random.RandomState):
            return cls(value, value.get_state())
        if isinstance(value, random.Random):
            return cls(value, value.getstate())
        return cls(value, copy.copy(value))

    def restore(self) -> None:
        value, content = self.value, self.content
        if isinstance(value, (torch.Generator, np.random.RandomState)):
            value.set_state(content)
        elif isinstance(value, np.random.Generator):
            value.bit_generator.state = content
        elif isinstance(value, random.Random):
            value.setstate(content)
        elif isinstance(value, np.ndarray):
            if value.flags.writeable:
                value[...] = content
        elif isinstance(value, dict):
            if [(k, id(v)) for k, v in value.items()] != [(k, id(v)) for k, v in content.items()]:
                value.clear()
                value.update(content)
        elif [id(each) for each in value] != [id(each) for each in content]:
            value.clear()
            value.update(content) if isinstance(value, set) else value.extend(content)


@dataclass(frozen=True)
class _TensorBefore:
    tensor: Tensor
    data: Tensor
    requires_grad: bool
    grad: Tensor | None
    values: Tensor | None

    @classmethod
    def of(cls, tensor: Tensor, values: bool) -> _TensorBefore:
        can_be_copied = tensor.layout == torch.strided and not tensor.is_meta
        return cls(
            tensor,
            tensor.detach(),
            tensor.requires_grad,
            tensor.grad if tensor.is_leaf else None,
            tensor.detach().to("cpu", copy=True) if values and can_be_copied else None,
        )

    def restore(self) -> None:
        tensor = self.tensor
        if tensor.device != self.data.device or tensor.dtype != self.data.dtype:
            tensor.data = self.data
        if self.values is not None and not torch.equal(tensor.detach().cpu(), self.values):
            with torch.inference_mode(tensor.is_inference()), torch.no_grad():
                tensor.detach().copy_(self.values)
        if tensor.is_leaf and tensor.requires_grad != self.requires_grad:
            tensor.requires_grad_(self.requires_grad)
        if tensor.is_leaf and tensor.grad is not self.grad:
            tensor.grad = self.grad
