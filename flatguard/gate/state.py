"""What a model holds beside its weights: a threshold or a table in a plain attribute."""

from __future__ import annotations

import enum
import functools
import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import FunctionType, MethodType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from flatguard.gate.code import file_of, is_project

BOOKKEEPING = set(vars(nn.Module())) - {"training"}
"""What torch keeps in every module; parameters and buffers are in the weights already."""

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
PLAIN = (
    type(None), bool, int, float, complex, str, bytes, Path, enum.Enum, slice,
    torch.dtype, torch.device, torch.Size, np.generic,
)  # fmt: skip


class State:
    """Says in words what a model holds, and collects the files of the project that take part.

    Attributes:
        files: of classes and functions that were met.
    """

    def __init__(self) -> None:
        self.files: set[Path] = set()
        self._seen: dict[int, int] = {}
        self._kept: list[Any] = []  # an id is a name only while its object lives

    def of(self, value: Any) -> Any:
        """A value as JSON can hold it; what holds itself is named by its number."""
        if isinstance(value, PLAIN):
            return f"{type(value).__name__} {value!r}"
        if id(value) in self._seen:
            return f"again {self._seen[id(value)]}"
        self._seen[id(value)] = len(self._seen)
        self._kept.append(value)
        if isinstance(value, np.ndarray) and value.dtype == object:
            return ["array", self.of(value.tolist())]
        if isinstance(value, Tensor | np.ndarray):
            return _numbers(value)
        if isinstance(value, Mapping):
            return [type(value).__name__, [[self.of(k), self.of(v)] for k, v in value.items()]]
        if isinstance(value, set | frozenset):
            return [type(value).__name__, sorted(repr(self.of(member)) for member in value)]
        if isinstance(value, list | tuple):
            return [type(value).__name__, [self.of(member) for member in value]]
        return self._code(value) if callable(value) else self._object(value)

    def _code(self, value: Any) -> Any:
        """A function with what it closes over; a class is its file."""
        if isinstance(value, MethodType):
            return ["method", value.__name__, self.of(value.__self__), self.of(value.__func__)]
        if isinstance(value, functools.partial):
            parts = (value.func, value.args, value.keywords)
            return ["partial", [self.of(part) for part in parts]]
        if isinstance(value, FunctionType):
            self._meet(value)
            cells = [self._cell(cell) for cell in value.__closure__ or ()]
            defaults = self.of((value.__defaults__, value.__kwdefaults__))
            return ["function", value.__qualname__, value.__code__.co_code.hex(), cells, defaults]
        if isinstance(value, type):
            self._meet(value)
            return ["class", value.__module__, value.__qualname__]
        return self._object(value)

    def _cell(self, cell: Any) -> Any:
        try:
            return self.of(cell.cell_contents)
        except ValueError:  # not filled yet
            return "empty"

    def _object(self, value: Any) -> Any:
        """Its class; what it holds, where the class is the project's or it is a module."""
        kind = type(value)
        name = f"{kind.__module__}.{kind.__qualname__}"
        ours = [self._meet(each) for each in kind.__mro__]
        if isinstance(value, nn.Module):
            return [name, self._module(value)]
        return [name, self._entries(getattr(value, "__dict__", {}))] if any(ours) else name

    def _module(self, module: nn.Module) -> Any:
        held = {n: v for n, v in vars(module).items() if n not in BOOKKEEPING}
        hooks = [list(getattr(module, name, {}).values()) for name in HOOKS]
        # A module in a plain list has weights that no weights' hash covers.
        inner = (module._parameters, module._buffers, module._modules)
        return [self._entries(held), [self.of(part) for part in (*hooks, *inner)]]

    def _entries(self, held: Mapping[str, Any]) -> Any:
        return [[name, self.of(value)] for name, value in sorted(held.items())]

    def _meet(self, thing: Any) -> bool:
        """Whether a class or function is written in the project; its file is kept."""
        file = file_of(thing)
        if file is None or not is_project(file):
            # What was typed at a prompt or in a string is nobody else's.
            return file is None and getattr(thing, "__module__", "") in ("__main__", None)
        self.files.add(file)
        return True


def files_of(classes: Iterable[type]) -> set[Path]:
    """Where these classes and what they inherit from are written."""
    files = {file_of(each) for kind in classes for each in kind.__mro__}
    return {file for file in files if file is not None}


def _numbers(value: Tensor | np.ndarray) -> Any:
    if isinstance(value, np.ndarray):
        raw, kind = np.ascontiguousarray(value).tobytes(), f"{value.dtype}"
    elif value.layout != torch.strided or value.is_meta:
        return ["tensor", str(value.dtype), list(value.shape)]
    else:
        flat = value.detach().cpu().contiguous().reshape(-1)
        raw, kind = flat.view(torch.uint8).numpy().tobytes(), f"{value.dtype}"
    return [type(value).__name__, kind, list(value.shape), hashlib.sha256(raw).hexdigest()]
