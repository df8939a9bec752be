"""Everything that a model holds, also what torch does not register.

`model.modules()` and `state_dict()` show registered modules and tensors only. A model may also hold
modules and tensors in plain attributes, lists, dicts, closures and `functools.partial`.
"""

from __future__ import annotations

import functools
import random
import types
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

MACHINERY = frozenset({*vars(nn.Module()), "_load_hook", "_initialize_hook", "_is_hf_initialized"})
"""The attributes that torch itself gives to a module: registered parts, hooks and the mode."""

REGISTERED = ("_parameters", "_buffers", "_modules")

CONTAINERS = (list, tuple, dict, set, frozenset, deque)
GENERATORS = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)


@dataclass(frozen=True)
class Part:
    """An object that a model holds.

    Attributes:
        path: how it is reached from the model: `layers[0].weight`.
        value: a module, a tensor, an array, a container, a generator, or any other object.
        owner: the module whose attribute leads to it; None for the model itself.
    """

    path: str
    value: object
    owner: nn.Module | None


def parts_of(model: nn.Module) -> Iterator[Part]:
    """All that the model holds, the model first, each object once, in a fixed order.

    Other objects than modules, tensors, containers and functions are given, but not searched.
    """
    waiting = [Part("", model, None)]
    seen: dict[int, object] = {}
    while waiting:
        part = waiting.pop()
        if id(part.value) in seen and not _is_plain(part.value):
            continue
        seen[id(part.value)] = part.value  # held, so that no new object gets its id
        yield part
        waiting.extend(reversed(list(_inside(part))))


def _is_plain(value: object) -> bool:
    return value is None or isinstance(value, (bool, int, float, str, bytes))


def _inside(part: Part) -> Iterator[Part]:
    value, path, owner = part.value, part.path, part.owner
    if isinstance(value, nn.Module):
        for name, each in _attributes(value):
            yield Part(f"{path}.{name}" if path else name, each, value)
    elif isinstance(value, dict):
        for key, each in value.items():
            yield Part(f"{path}[{key!r}]", each, owner)
    elif isinstance(value, (list, tuple, deque)):
        for index, each in enumerate(value):
            yield Part(f"{path}[{index}]", each, owner)
    elif isinstance(value, (set, frozenset)):
        for each in value:
            yield Part(f"{path}{{}}", each, owner)
    elif isinstance(value, functools.partial):
        yield Part(f"{path}.func", value.func, owner)
        yield Part(f"{path}.args", value.args, owner)
        yield Part(f"{path}.keywords", value.keywords, owner)
    elif isinstance(value, types.MethodType):
        yield Part(f"{path}.__self__", value.__self__, owner)
        yield Part(f"{path}.__func__", value.__func__, owner)
    elif isinstance(value, types.FunctionType):
        yield Part(f"{path}.__defaults__", value.__defaults__, owner)
        names = value.__code__.co_freevars
        for name, cell in zip(names, value.__closure__ or (), strict=True):
            try:
                yield Part(f"{path}.{name}", cell.cell_contents, owner)
            except ValueError:  # the cell is empty
                continue


def _attributes(module: nn.Module) -> Iterator[tuple[str, object]]:
    """Registered parts, then plain attributes; a script has registered ones only."""
    if isinstance(module, torch.jit.ScriptModule):
        yield from module.named_parameters(recurse=False)
        yield from module.named_buffers(recurse=False)
        yield from module.named_children()
        return
    held = vars(module)
    for kind in REGISTERED:
        yield from held.get(kind, {}).items()
    yield from plain_attributes(module).items()


def plain_attributes(module: nn.Module) -> dict[str, object]:
    """What a module holds besides its registered parts, hooks and mode."""
    if isinstance(module, torch.jit.ScriptModule):
        return {}
    return {name: value for name, value in vars(module).items() if name not in MACHINERY}


def tensors_of(model: nn.Module) -> list[Tensor]:
    """All tensors that a model holds."""
    return [part.value for part in parts_of(model) if isinstance(part.value, Tensor)]


def modules_of(model: nn.Module) -> list[nn.Module]:
    """All modules that a model holds, the model first."""
    return [part.value for part in parts_of(model) if isinstance(part.value, nn.Module)]
