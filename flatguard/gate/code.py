"""The user's source files that a model is written in, with all of the project that they import.

Imports are read from the source: a constant that is imported by name leaves no trace in a running
program, and what else a process has loaded must not change the answer. An import under a name that
is computed at run time is not found.
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from torch import nn

from flatguard.targets.neighbours import imports_of

_FLATGUARD = Path(__file__).resolve().parent.parent
_STDLIB = Path(ast.__file__).resolve().parent
_INSTALLED = {"site-packages", "dist-packages"}


def source_files(model: nn.Module, arch: str | None = None) -> list[Path]:
    """The project's files that a model depends on, sorted.

    Args:
        model: its modules' classes name the first files.
        arch: `module:factory` or `file.py:factory`, where the model was built by one.
    """
    with imports_of(model):
        waiting = [file for module in model.modules() for file in _class_files(type(module))]
    roots: list[Path] = []
    if arch is not None:
        place = arch.rpartition(":")[0]
        if place.endswith(".py"):
            waiting.append(Path(place))
            roots += _package_roots(Path(place).resolve())
        else:
            waiting += _find(place, _search_path())
    found: set[Path] = set()
    while waiting:
        file = waiting.pop().resolve()
        if file not in found and _is_project(file):
            found.add(file)
            waiting += _imported(file, roots)
    return sorted(found)


def _class_files(kind: type) -> Iterator[Path]:
    """Where a class and the classes that it inherits from are written."""
    for each in kind.__mro__:
        try:
            yield Path(inspect.getfile(each))
        except (TypeError, OSError):  # built in, or typed at a prompt
            continue


def _is_project(path: Path) -> bool:
    """Whether a path is the user's own: not Python's, not installed, not flatguard's."""
    return path.exists() and not (
        _INSTALLED & set(path.parts)
        or path.is_relative_to(_FLATGUARD)
        or path.is_relative_to(_STDLIB)
    )


def _search_path() -> list[Path]:
    """The project's folders among those that Python searches for modules."""
    folders = [Path(entry).resolve() for entry in (*sys.path, "")]
    return [folder for folder in folders if _is_project(folder)]


def _imported(file: Path, roots: list[Path]) -> Iterator[Path]:
    """The project's files that a source file imports; `roots` are searched first."""
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):  # such as a compiled module
        return
    search_path = [*roots, *_search_path(), *_package_roots(file)]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _find(alias.name, search_path)
        elif isinstance(node, ast.ImportFrom):
            relative = file.parents[node.level - 1 : node.level] if node.level else ()
            yield from (folder / "__init__.py" for folder in relative)
            module = f"{node.module}." if node.module else ""
            for alias in node.names:  # `from a import b`: b may be a module
                yield from _find(module + alias.name, relative or search_path)


def _package_roots(file: Path) -> Iterable[Path]:
    """The folder of a file, and the one above the outermost package that it is in."""
    folder = file.parent
    while (folder / "__init__.py").is_file():
        folder = folder.parent
    return (file.parent, folder)


def _find(name: str, search_path: Iterable[Path]) -> list[Path]:
    """The files of a module by its dotted name, with the packages that it is in."""
    for folder in search_path:
        found = list(_down(folder, name.split(".")))
        if found:
            return found
    return []


def _down(folder: Path, names: list[str]) -> Iterator[Path]:
    """The files on the way from a folder to a module; the way ends at a name inside a module."""
    for name in names:
        package, module = folder / name / "__init__.py", folder / f"{name}.py"
        if package.is_file():
            yield package
        elif module.is_file():
            yield module
            return
        elif not (folder / name).is_dir():
            yield from sorted(folder.glob(f"{name}.*.so"))
            return
        folder = folder / name
