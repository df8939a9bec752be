"""The attacks of the supported libraries: one library a file, all behind one protocol.

Another package adds a library by an entry point in the group `flatguard.attacks`.
Internal: the public API is what flatguard exports and what docs/reference/api.md lists.
"""

from __future__ import annotations

import importlib
from importlib import metadata
from types import ModuleType
from typing import Any

from flatguard.attacks.attack import Attack, AttackInfo, Perturbed, check_args, parse_args
from flatguard.environment.torch_state import kept_state
from flatguard.errors import AttackError, EnvironmentProblem, nearest, one_line
from flatguard.geometry.budget import Budget

__all__ = [
    "Attack",
    "AttackInfo",
    "Perturbed",
    "build_attack",
    "check_args",
    "find_attack",
    "libraries",
    "list_attacks",
    "parse_args",
    "unavailable",
]

_ENTRY_POINTS = "flatguard.attacks"
"""The entry point group for adapters of other packages: `library = "module"`."""

_BUILT_IN = ("autoattack", "cascade", "torchattacks", "foolbox", "examples")


def _adapter(library: str) -> ModuleType:
    """The module with `infos()` and `build()` of a library, built in or from another package."""
    if library in _BUILT_IN:
        return importlib.import_module(f"flatguard.attacks.{library}_adapter")
    for point in metadata.entry_points(group=_ENTRY_POINTS, name=library):
        try:
            with kept_state():
                module: ModuleType = point.load()
        except Exception as error:  # another package's import may raise anything
            raise AttackError(
                f"the adapter {point.value} for {library}: {one_line(error)}"
            ) from error
        if not hasattr(module, "infos") or not hasattr(module, "build"):
            raise AttackError(f"the adapter {point.value} for {library} needs infos() and build()")
        return module
    raise AttackError(
        f"no attack library {library!r}; there are {', '.join(libraries())}; a package may add one "
        f"by an entry point in the group {_ENTRY_POINTS}"
    )


def libraries() -> list[str]:
    """The names of all attack libraries, the built-in ones first."""
    others = {point.name for point in metadata.entry_points(group=_ENTRY_POINTS)}
    return [*_BUILT_IN, *sorted(others - set(_BUILT_IN))]


def _library(name: str) -> str:
    library, colon, _ = name.partition(":")
    if colon:
        return library
    return "cascade" if name.lower() == "cascade" else "autoattack"


def list_attacks() -> list[AttackInfo]:
    """Every attack of every installed library, AutoAttack's first."""
    found: list[AttackInfo] = []
    for library in libraries():
        if unavailable(library) is None:
            found += _adapter(library).infos().values()
    return found


def unavailable(library: str) -> str | None:
    """The reason why a library cannot be used here, or None if it can."""
    try:
        _adapter(library).infos()
    except EnvironmentProblem as error:
        return str(error)
    return None


def find_attack(name: str) -> AttackInfo:
    """The attack of this name; `torchattacks:pgd` finds `torchattacks:PGD`.

    Raises:
        AttackError: unknown, with the nearest names.
    """
    adapter = _adapter(_library(name))
    if hasattr(adapter, "find"):  # its names hold a path, and cannot be listed
        stored: AttackInfo = adapter.find(name)
        return stored
    known: dict[str, AttackInfo] = adapter.infos()
    if name in known:
        return known[name]
    same = [info for key, info in known.items() if key.lower() == name.lower()]
    if len(same) == 1:
        return same[0]
    everything = [info.name for info in list_attacks()]
    same_tail = [key for key in everything if key.lower().endswith(f":{name.lower()}")]
    found = [*same_tail, *(key for key in nearest(name, everything) if key not in same_tail)]
    hint = f"; nearest: {', '.join(found[:5])}" if found else ""
    raise AttackError(f"unknown attack {name!r}{hint}; `flatguard attacks` lists them")


def build_attack(name: str, budget: Budget, num_classes: int, args: dict[str, Any]) -> Attack:
    """An attack that is ready to run.

    Raises:
        AttackError: unknown name or argument, or a norm that the attack does not support.
    """
    info = find_attack(name)
    if budget.norm not in info.norms:
        raise AttackError(
            f"{info.name} measures {' or '.join(info.norms)}, but the norm is {budget.norm}"
        )
    attack: Attack = _adapter(_library(info.name)).build(info.name, budget, num_classes, args)
    return attack
