"""Sees the linear operations that a model's modules run themselves, outside of their children.

Inside a watched module, a `TorchFunctionMode` sees every call of a torch function; while a child
runs, it is off. So an operation has a place that stays the same from pass to pass: the module that
runs it, which of the module's calls it is, and which of its linear operations.

Cost: about 5 µs for each torch function that a watched module calls itself, and for each call of a
module with a hook.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from flatguard.targets.linear_operations import Product, is_linear, is_wrapped, product_of


@dataclass(frozen=True)
class Place:
    """Where a linear operation runs in one forward pass.

    Attributes:
        owner: the name of the innermost module that runs it; empty for the model itself.
        call: the number of this call among those of the owner, from 0.
        index: the number of the operation among the linear ones of this call, from 0.
    """

    owner: str
    call: int
    index: int


ProductListener = Callable[[Place, Callable[..., Any], Product], None]


@dataclass
class _Frame:
    """A call of a module that has not ended."""

    name: str
    call: int
    is_watched: bool
    count: int = 0


@dataclass
class Watch:
    """Watches some modules of one model.

    Attributes:
        model: its root.
        owners: the names of the modules to watch; None watches all.
        listener: receives the linear operations.
        places: the operations to tell the listener about; None tells about all.
        called: the modules that each module called itself, filled as the model runs.
    """

    model: nn.Module
    owners: Collection[str] | None
    listener: ProductListener
    places: Collection[Place] | None = None
    children: Collection[str] = ()
    at_start: Callable[[], None] | None = None
    at_end: Callable[[], None] | None = None
    called: dict[str, set[str]] = field(default_factory=dict)
    _frames: list[_Frame] = field(default_factory=list)
    _calls: dict[str, int] = field(default_factory=dict)
    _is_on: bool = False

    def __post_init__(self) -> None:
        self._mode = _Mode(self)

    @contextmanager
    def active(self) -> Iterator[None]:
        """Watch every forward pass inside."""
        with ExitStack() as stack:
            sealed: list[str] = []
            for name, module in self.model.named_modules():
                if any(name.startswith(each) for each in sealed):
                    continue
                if is_sealed(module):
                    sealed.append(f"{name}." if name else "")
                if isinstance(module, torch.jit.ScriptModule):
                    continue  # it has no hooks
                if not name or self.owners is None or name in {*self.owners, *self.children}:
                    self._hook(stack, name, module)
            yield

    def _hook(self, stack: ExitStack, name: str, module: nn.Module) -> None:
        # A copy of the model copies its hooks; a copy's calls are not seen.
        def before(called: nn.Module, inputs: Any) -> None:
            if called is module:
                self._begin(name, is_sealed(module))

        def after(called: nn.Module, inputs: Any, output: Any) -> None:
            if called is module:
                self._finish(name)

        stack.callback(module.register_forward_pre_hook(before).remove)
        handle = module.register_forward_hook(after, prepend=True, always_call=True)
        stack.callback(handle.remove)

    def _begin(self, name: str, is_sealed: bool) -> None:
        if not name:
            self._frames.clear()
            self._calls.clear()
            if self.at_start is not None:
                self.at_start()
        elif not self._frames:
            return  # the module was called by itself
        else:
            self.called.setdefault(self._frames[-1].name, set()).add(name)
        number = self._calls.get(name, 0)
        self._calls[name] = number + 1
        is_watched = not is_sealed and (self.owners is None or name in self.owners)
        self._frames.append(_Frame(name, number, is_watched))
        self._switch()

    def _finish(self, name: str) -> None:
        if not any(frame.name == name for frame in self._frames):
            return
        while self._frames.pop().name != name:
            pass
        self._switch()
        if not name and self.at_end is not None:
            self.at_end()

    def _switch(self) -> None:
        """The mode is on while a watched module runs, and no child of it."""
        wanted = bool(self._frames) and self._frames[-1].is_watched
        if wanted and not self._is_on:
            self._mode.__enter__()  # type: ignore[no-untyped-call]
            self._is_on = True
        elif not wanted and self._is_on and _innermost() is self._mode:
            # Another mode may be further inside: then this one stays, and sees in vain.
            self._mode.__exit__(None, None, None)  # type: ignore[no-untyped-call]
            self._is_on = False

    def saw(self, function: Callable[..., Any], inputs: Any, keywords: Any, out: Any) -> None:
        """A torch function returned."""
        if not self._frames or not self._frames[-1].is_watched or not is_linear(function):
            return
        frame = self._frames[-1]
        place = Place(frame.name, frame.call, frame.count)
        frame.count += 1
        if (self.places is None or place in self.places) and not is_wrapped(out):
            product = product_of(function, inputs, keywords, out)
            if product is not None:
                self.listener(place, function, product)


def is_compiled(module: nn.Module) -> bool:
    """Whether `torch.compile` runs the module."""
    # Nothing is compiled before the compiler is imported, and its import takes seconds.
    compiler: Any = sys.modules.get("torch._dynamo.eval_frame")
    is_wrapper = compiler is not None and isinstance(module, compiler.OptimizedModule)
    return is_wrapper or getattr(module, "_compiled_call_impl", None) is not None


def is_sealed(module: nn.Module) -> bool:
    """Whether nothing inside the module can be seen: it is compiled, or a script."""
    return is_compiled(module) or isinstance(module, torch.jit.ScriptModule)


class _Mode(TorchFunctionMode):
    def __init__(self, watch: Watch):
        super().__init__()
        self.watch = watch

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        keywords = kwargs or {}
        out = func(*args, **keywords)
        self.watch.saw(func, args, keywords, out)
        return out


def _innermost() -> TorchFunctionMode | None:
    found: TorchFunctionMode | None = torch.overrides._get_current_function_mode()
    return found
