"""The user's own network from `--arch`: `module:factory` or `file.py:factory`.

A file can import its neighbours, as if Python ran it as a script, and be part of a package with
relative imports. Two files in two folders may have neighbours of one name.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from torch import nn

from flatguard.environment.offline import last_refusal
from flatguard.environment.torch_state import kept_state
from flatguard.errors import UsageError, one_line

_INSTALLED = {"site-packages", "dist-packages"}
_STDLIB = Path(importlib.__file__ or "").resolve().parents[1]
_FLATGUARD = Path(__file__).resolve().parents[1]

_loaded: dict[str, ModuleType] = {}
"""The modules that earlier files imported from their folders."""


@kept_state()
def build(arch: str) -> nn.Module:
    """The model from the factory that `module:factory` or `file.py:factory` names.

    Raises:
        UsageError: no such module or factory, it fails, or it returns no module.
    """
    place, colon, name = arch.rpartition(":")
    if not colon or not place or not name.isidentifier():  # C:\\nets\\net.py contains a colon
        raise UsageError(f"--arch: expected module:factory or file.py:factory, got {arch!r}")
    if not place.endswith(".py"):
        return _built(_module_of_name(place), place, name, arch)
    file = Path(place)
    if not file.is_file():
        raise UsageError(f"--arch: no file {file}")
    file = file.resolve()
    with _neighbours(file):
        return _built(_module_of_file(file, place), place, name, arch)


def _built(module: ModuleType, place: str, name: str, arch: str) -> nn.Module:
    factory = getattr(module, name, None)
    if not callable(factory):
        callables = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
        raise UsageError(
            f"--arch: {place} has no factory {name}; it has {', '.join(callables[:8])}"
        )
    try:
        model = factory()
    except (Exception, SystemExit) as error:
        hint = "; it must take no arguments" if isinstance(error, TypeError) else last_refusal()
        what = f"{type(error).__name__}: {one_line(error)}"
        raise UsageError(f"--arch {arch}: the factory fails: {what}{hint}") from error
    if not isinstance(model, nn.Module):
        raise UsageError(f"--arch {arch}: expected an nn.Module, got {type(model).__name__}")
    return model


def _module_of_file(file: Path, place: str) -> ModuleType:
    package = _package_of(file)[0]
    if package:
        name = f"{package}.{file.stem}"
        return _importing(lambda: importlib.import_module(name), place)
    try:
        return _importing(lambda: _run(file), place)
    except UsageError as error:
        if "no known parent package" not in str(error):
            raise
    # Relative imports without an __init__.py: the folder is a package all the same.
    sys.path.insert(0, str(file.parent.parent))
    name = f"{file.parent.name}.{file.stem}"
    return _importing(lambda: importlib.import_module(name), place)


def _run(file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"flatguard_arch_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise UsageError(f"--arch: {file} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _module_of_name(name: str) -> ModuleType:
    # A console script does not search the current folder, which holds the user's code.
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    return _importing(lambda: importlib.import_module(name), name)


def _importing(load_module: Callable[[], ModuleType], name: str) -> ModuleType:
    try:
        return load_module()
    except UsageError:
        raise
    except (Exception, SystemExit) as error:  # the user's own module may raise anything
        raise UsageError(
            f"--arch: importing {name} fails: {type(error).__name__}: {one_line(error)}"
        ) from error


def _package_of(file: Path) -> tuple[str, Path]:
    """The dotted name of the package that a file is in, and the folder above it; `""` if none."""
    names, folder = [], file.parent
    while (folder / "__init__.py").is_file():
        names.append(folder.name)
        folder = folder.parent
    return ".".join(reversed(names)), folder


@contextmanager
def _neighbours(file: Path) -> Iterator[None]:
    """Search the file's folder, and the one above its package, before all others.

    Modules of these names that the process has from elsewhere are put aside meanwhile. The folders
    stay at the end of the search path, because a network may import when it is called.
    """
    folders = [str(folder) for folder in dict.fromkeys((file.parent, _package_of(file)[1]))]
    for name, module in _loaded.items():
        if sys.modules.get(name) is module:
            del sys.modules[name]
    _loaded.clear()
    aside = {name: sys.modules.pop(name) for name in _others_of_these_names(file, folders)}
    before, path = set(sys.modules), list(sys.path)
    sys.path[:0] = folders
    try:
        yield
    finally:
        sys.path[:] = [*path, *(folder for folder in folders if folder not in path)]
        new = {name: module for name, module in sys.modules.items() if name not in before}
        _loaded.update({name: m for name, m in new.items() if _is_in(m, folders)})
        sys.modules.update(aside)


def _others_of_these_names(file: Path, folders: list[str]) -> list[str]:
    """The loaded modules that would hide a neighbour, but for those of Python and of packages."""
    names = {entry.stem for entry in file.parent.iterdir() if entry.suffix in ("", ".py")}
    names.add(_package_of(file)[0].partition(".")[0] or file.parent.name)
    return [
        name
        for name, module in sys.modules.items()
        if name.partition(".")[0] in names and _is_users(module) and not _is_in(module, folders)
    ]


def _is_users(module: ModuleType) -> bool:
    place = getattr(module, "__file__", None) or next(iter(getattr(module, "__path__", [])), None)
    if not place:
        return False
    path = Path(place).resolve()
    return not (
        _INSTALLED & set(path.parts)
        or path.is_relative_to(_STDLIB)
        or path.is_relative_to(_FLATGUARD)
    )


def _is_in(module: ModuleType, folders: list[str]) -> bool:
    file = getattr(module, "__file__", None)
    return file is not None and any(
        Path(file).resolve().is_relative_to(folder) for folder in folders
    )
