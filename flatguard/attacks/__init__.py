"""Whose attack it is: one library a file, all behind one protocol."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from flatguard.attacks.attack import Attack, AttackInfo, Perturbed, check_args, parse_args
from flatguard.errors import AttackError, nearest
from flatguard.geometry.budget import Budget

__all__ = [
    "Attack",
    "AttackInfo",
    "Perturbed",
    "build_attack",
    "check_args",
    "find_attack",
    "list_attacks",
    "parse_args",
]


def _adapter(name: str) -> ModuleType:
    library, colon, _ = name.partition(":")
    if colon and library == "torchattacks":
        from flatguard.attacks import torchattacks_adapter

        return torchattacks_adapter
    if colon and library == "foolbox":
        from flatguard.attacks import foolbox_adapter

        return foolbox_adapter
    from flatguard.attacks import autoattack_adapter

    return autoattack_adapter


def list_attacks() -> list[AttackInfo]:
    """Every attack of every library, AutoAttack's first."""
    return [
        info
        for library in ("", "torchattacks:", "foolbox:")
        for info in _adapter(library).infos().values()
    ]


def find_attack(name: str) -> AttackInfo:
    """The attack of this name; `torchattacks:pgd` finds `torchattacks:PGD`.

    Raises:
        AttackError: unknown, with the nearest names.
    """
    known: dict[str, AttackInfo] = _adapter(name).infos()
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
    """An attack ready to run.

    Raises:
        AttackError: unknown name or argument, or a norm that the attack does not measure.
    """
    info = find_attack(name)
    if budget.norm not in info.norms:
        raise AttackError(
            f"{info.name} measures {' or '.join(info.norms)}, but the norm is {budget.norm}"
        )
    attack: Attack = _adapter(info.name).build(info.name, budget, num_classes, args)
    return attack
