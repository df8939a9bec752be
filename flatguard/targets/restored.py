"""Restores the caller's model: mode, weights, gradients, flags, hooks and device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

_HOOKS = (
    "_forward_hooks", "_forward_hooks_with_kwargs", "_forward_hooks_always_called",
    "_forward_pre_hooks", "_forward_pre_hooks_with_kwargs", "_backward_hooks",
    "_backward_pre_hooks",
)  # fmt: skip
_REGISTERED = ("_parameters", "_buffers")


@contextmanager
def restored(*models: object) -> Iterator[None]:
    """Restore the models at the end, also after an error.

    Restored are, for every module, its mode, its hooks and its tensors; for every tensor, its
    values, device, `requires_grad` and `.grad` (the same object with the same values). Inside, no
    tensor has a `.grad`. Modules and tensors in plain attributes, lists and dicts are included.

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
    modules, tensors = _parts(model)
    of_modules = [_ModuleBefore.of(module) for module in modules]
    of_tensors = [_TensorBefore.of(tensor, values) for tensor in tensors]
    try:
        for tensor in tensors:
            if tensor.is_leaf:
                tensor.grad = None
        yield
    finally:
        for module in of_modules:
            module.restore()
        for before in of_tensors:
            before.restore()


def _parts(model: nn.Module) -> tuple[list[nn.Module], list[Tensor]]:
    """All modules and tensors of a model, also those that torch does not register."""
    modules: list[nn.Module] = []
    tensors: list[Tensor] = []
    waiting: list[object] = [model]
    seen: dict[int, object] = {}
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        if isinstance(value, Tensor):
            if is_lazy(value):
                continue  # its shape is set by the first call, permanently
            tensors.append(value)
        elif isinstance(value, nn.Module):
            modules.append(value)
            is_script = isinstance(value, torch.jit.ScriptModule)
            waiting.extend(vars(value).values())
            if is_script:
                inside = (value.children(), value.parameters(False), value.buffers(False))
                waiting.extend(member for part in inside for member in part)
        elif isinstance(value, dict):
            waiting.extend(value.values())
        elif isinstance(value, (list, tuple, set)):
            waiting.extend(value)
        else:
            continue
        seen[id(value)] = value  # held, so that no new object gets its id
    return modules, tensors


@dataclass(frozen=True)
class _ModuleBefore:
    module: nn.Module
    training: bool
    hooks: dict[str, dict[Any, Any]]
    registered: dict[str, dict[str, Tensor | None]]
    plain: dict[str, Tensor]

    @classmethod
    def of(cls, module: nn.Module) -> _ModuleBefore:
        held = {} if isinstance(module, torch.jit.ScriptModule) else vars(module)
        return cls(
            module,
            module.training,
            {name: dict(held[name]) for name in _HOOKS if name in held},
            {name: dict(held[name]) for name in _REGISTERED if name in held},
            {name: value for name, value in held.items() if isinstance(value, Tensor)},
        )

    def restore(self) -> None:
        held = vars(self.module)
        if self.module.training != self.training:
            self.module.training = self.training
        for name, before in self.hooks.items():
            if list(held[name].items()) != list(before.items()):
                held[name].clear()  # the same dict: the handles of the caller's hooks refer to it
                held[name].update(before)
        for name, tensors in self.registered.items():
            for key in [key for key in held[name] if key not in tensors]:
                del held[name][key]
            for key, tensor in tensors.items():
                if held[name].get(key) is not tensor:
                    setattr(self.module, key, tensor)
        for key, tensor in self.plain.items():
            if held.get(key) is not tensor:
                setattr(self.module, key, tensor)


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
