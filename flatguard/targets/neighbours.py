"""What an `--arch` file imports: its neighbours, which other files may have under the same names.

The file's folder is searched, and its neighbours are in `sys.modules`, only while the file is
imported, while its factory runs, and while its network is called. So two networks have neighbours
of one name, and a network finds its own also where it imports them in its forward pass. Afterwards
the caller's `sys.path` and `sys.modules` are as they were.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

_INSTALLED = {"site-packages", "dist-packages"}
_STDLIB = Path(importlib.__file__ or "").resolve().parents[1]
_FLATGUARD = Path(__file__).resolve().parents[1]


class Neighbours:
    """The folders that a file imports from, and the modules that it has from there.

    Args:
        folders: searched before all others.
        last: searched after all others.
    """

    def __init__(self, folders: list[Path], last: list[Path] | None = None):
        self._first = [str(folder.resolve()) for folder in folders]
        self._last = [str(folder.resolve()) for folder in last or []]
        self._names: set[str] = set()
        self._own: dict[str, ModuleType] = {}
        self._aside: dict[str, ModuleType] = {}
        self._path: list[str] | None = None
        self._before: list[str] = []
        self._read_names()

    def __deepcopy__(self, memo: object) -> Neighbours:
        """The same: copies of a model have their imports in common."""
        return self

    def __reduce__(self) -> tuple[object, ...]:
        """By the folders; another process imports again."""
        return Neighbours, ([*map(Path, self._first)], [*map(Path, self._last)])

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Import from these folders; afterwards `sys.path` and `sys.modules` are as they were."""
        self.enter()
        try:
            yield
        finally:
            self.leave()

    def enter(self) -> None:
        """Search the folders, with the modules that the file has from there.

        Modules of these names that the process has from elsewhere are put aside until `leave`.

        Cost: about 20 µs.
        """
        self.leave()  # a call that was interrupted did not
        self._path = list(sys.path)
        aside = {*self._of_others(), *(name for name in self._own if name in sys.modules)}
        self._aside = {name: sys.modules.pop(name) for name in aside}
        sys.modules.update(self._own)
        self._before = list(sys.modules)
        sys.path[:0] = self._first
        sys.path += [folder for folder in self._last if folder not in sys.path]

    def leave(self) -> None:
        """Undo `enter`, and keep what was imported from the folders since."""
        if self._path is None:
            return
        path, self._path = self._path, None
        known = {*path, *self._first, *self._last}
        added = [entry for entry in sys.path if entry not in known]
        if added:  # by the file itself
            self._first += [str(Path(entry).resolve()) for entry in added]
            self._read_names()
        if len(sys.modules) != len(self._before):
            new = set(sys.modules).difference(self._before)
            self._own.update({name: sys.modules[name] for name in new if self._is_mine(name)})
        for name, module in self._own.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]
        sys.path[:] = path
        sys.modules.update(self._aside)
        self._aside = {}

    def follow(self, model: nn.Module) -> None:
        """Enter for each call of a model and of its copies."""
        if not isinstance(model, torch.jit.ScriptModule):  # it holds its code
            model.register_forward_pre_hook(self._before_call)
            model.register_forward_hook(self._after_call, always_call=True)
            _followed[model] = self

    def _before_call(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        self.enter()

    def _after_call(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        self.leave()

    def _read_names(self) -> None:
        """The names of the modules that lie in the folders, and of the folders."""
        for folder in map(Path, self._first):
            self._names.add(folder.name)
            with contextlib.suppress(OSError):
                self._names.update(e.stem for e in folder.iterdir() if e.suffix in ("", ".py"))

    def _of_others(self) -> list[str]:
        """The loaded modules that would hide a neighbour; those of Python and packages stay."""
        hiding = {
            name
            for name in self._names
            if name in sys.modules and _is_users(sys.modules[name]) and not self._is_mine(name)
        }
        if not hiding:
            return []
        return [name for name in sys.modules if name.partition(".")[0] in hiding]

    def _is_mine(self, name: str) -> bool:
        module, folders = sys.modules[name], [*self._first, *self._last]
        place = _place(module)
        return (
            place is not None
            and _is_users(module)
            and any(place.is_relative_to(folder) for folder in folders)
        )


_followed: WeakKeyDictionary[nn.Module, Neighbours] = WeakKeyDictionary()


@contextmanager
def imports_of(model: nn.Module) -> Iterator[None]:
    """Import as a model's own file does; a model that no `--arch` file built changes nothing."""
    found = [_followed[part] for part in model.modules() if part in _followed]
    with found[0].entered() if found else contextlib.nullcontext():
        yield


def _place(module: ModuleType) -> Path | None:
    """Where a module lies: its file, or the folder of a package without one."""
    place = getattr(module, "__file__", None) or next(iter(getattr(module, "__path__", [])), None)
    return Path(place).resolve() if isinstance(place, str) else None


def _is_users(module: ModuleType) -> bool:
    path = _place(module)
    return path is not None and not (
        _INSTALLED & set(path.parts)
        or path.is_relative_to(_STDLIB)
        or path.is_relative_to(_FLATGUARD)
    )
