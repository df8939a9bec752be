"""The files that a model's code is written in, with all of the project that they import.

Found by reading, not by looking at what is loaded: a constant that is imported by name leaves no
trace in a running program, and what else a process has loaded must not change the answer. Imports
that are made at run time under a computed name are not seen here.
"""

from __future__ import annotations

import ast
import importlib.util
import inspect
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

OURS = Path(__file__).resolve().parent.parent
INSTALLED = {"site-packages", "dist-packages"}


def file_of(thing: Any) -> Path | None:
    """Where a class or function is written; None where no file shows it."""
    try:
        file = Path(inspect.getfile(thing)).resolve()
    except (TypeError, OSError):
        return None
    return file if file.is_file() else None


def is_project(file: Path) -> bool:
    """Whether a file is the user's own: not Python's, not installed, not flatguard's."""
    return not (
        INSTALLED & set(file.parts)
        or file.is_relative_to(OURS)
        or file.is_relative_to(Path(ast.__file__).resolve().parent)
    )


def with_imports(files: Iterable[Path]) -> list[Path]:
    """These files and, of the project's, all that they import, and so on; sorted."""
    found: set[Path] = set()
    waiting = list(files)
    while waiting:
        file = waiting.pop().resolve()
        if file in found or not file.is_file():
            continue
        found.add(file)
        if is_project(file) and file.suffix == ".py":
            waiting += [other for other in _imported(file) if is_project(other.resolve())]
    return sorted(found)


def module_files(name: str, near: Path | None = None) -> list[Path]:
    """The files of a module by its dotted name, with the packages that it lies in."""
    top, *rest = name.split(".")
    if top in sys.stdlib_module_names:
        return []
    places = _known_places(top)
    if near is not None:
        places.append(near)
    for place in places:
        found = list(_down(place, [top, *rest]))
        if found:
            return found
    return []


def _known_places(top: str) -> list[Path]:
    """The folders that a module of this name may lie in: what is loaded, what could be."""
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):  # a module without a spec: run as a script
        spec = None
    if spec is not None and spec.submodule_search_locations:
        return [Path(folder).parent for folder in spec.submodule_search_locations]
    if spec is not None and spec.origin is not None:
        return [Path(spec.origin).parent]
    file = getattr(sys.modules.get(top), "__file__", None)
    return [Path(file).parent] if file else []


def _down(place: Path, names: list[str]) -> Iterator[Path]:
    """The files on the way from a folder to a module; a name that is none ends the way."""
    for name in names:
        package, module = place / name / "__init__.py", place / f"{name}.py"
        if package.is_file():
            yield package
        elif module.is_file():
            yield module
            return
        elif not (place / name).is_dir():
            yield from sorted(place.glob(f"{name}.*.so"))
            return
        place = place / name


def _imported(file: Path) -> list[Path]:
    """What a source file imports, anywhere in it."""
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):
        return []
    found: list[Path] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                found += module_files(alias.name, file.parent)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                found += _from(file, node, alias.name)
    return found


def _from(file: Path, node: ast.ImportFrom, name: str) -> list[Path]:
    """`from a import b`: b may be a module of its own."""
    parts = [*(node.module.split(".") if node.module else []), name]
    if node.level == 0:
        return module_files(".".join(parts), file.parent)
    folder = file.parents[node.level - 1]
    package = folder / "__init__.py"
    return [*([package] if package.is_file() else []), *_down(folder, parts)]
