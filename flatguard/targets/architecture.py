"""The user's own network from `--arch`: `module:factory` or `file.py:factory`.

A file can import its neighbours, as if Python ran it as a script, and be part of a package with
relative imports. Two files in two folders may have neighbours of one name. Settings that the
import changes, such as the default type, are restored before the factory is called.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import torch
from torch import nn

from flatguard.environment.offline import last_refusal
from flatguard.environment.randomness import preserved
from flatguard.environment.torch_state import kept_state
from flatguard.errors import UsageError, one_line
from flatguard.targets.neighbours import Neighbours


@kept_state()
def build(arch: str) -> nn.Module:
    """The model from the factory that `module:factory` or `file.py:factory` names.

    Raises:
        UsageError: no such module or factory, it fails, or it returns no module.
    """
    place, colon, name = arch.rpartition(":")
    if not colon or not place or not name.isidentifier():  # C:\\nets\\net.py contains a colon
        raise UsageError(f"--arch: expected module:factory or file.py:factory, got {arch!r}")
    importlib.invalidate_caches()
    if not place.endswith(".py"):
        neighbours = Neighbours([], _unsearched())
        with neighbours.entered():
            module = _importing(lambda: importlib.import_module(place), place)
            model = _built(module, place, name, arch)
    else:
        file = Path(place)
        if not file.is_file():
            raise UsageError(f"--arch: no file {file}")
        file = file.resolve()
        neighbours = Neighbours([*dict.fromkeys((file.parent, _package_of(file)[1]))])
        with neighbours.entered():
            model = _built(_module_of_file(file, place), place, name, arch)
    neighbours.follow(model)
    return model


def _unsearched() -> list[Path]:
    """The current folder, which holds the user's code; a console script does not search it."""
    here = Path.cwd()
    return [] if any(Path(entry).resolve() == here for entry in sys.path) else [here]


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


def _importing(load_module: Callable[[], ModuleType], name: str) -> ModuleType:
    """Import; what the module's code sets in torch, NumPy and the generators ends with it."""
    try:
        with kept_state(), preserved(torch.device("cpu")):
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
