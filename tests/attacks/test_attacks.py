"""Attacks by name: what is listed, what is refused, and that arguments reach the library."""

import pytest
import torch
import torchattacks

from flatguard.attacks import build_attack, find_attack, list_attacks
from flatguard.errors import AttackError
from flatguard.geometry.budget import Budget

LINF = Budget("Linf", 8 / 255)
Images = tuple[torch.Tensor, torch.Tensor]


def test_every_library_is_listed_whole() -> None:
    names = [info.name for info in list_attacks()]
    assert len(names) == len(set(names))
    parts = ["apgd-ce", "apgd-t", "apgd-dlr", "fab", "fab-t", "square", "standard", "plus", "rand"]
    assert names[:9] == parts
    listed = {n.partition(":")[2] for n in names if n.startswith("torchattacks:")}
    assert listed == set(torchattacks.__all__)
    assert {"foolbox:LinfPGD", "foolbox:BoundaryAttack", "foolbox:L2CarliniWagnerAttack"} <= set(
        names
    )


@pytest.mark.parametrize(
    ("name", "norms", "minimum_norm"),
    [
        ("apgd-ce", ("Linf", "L2", "L1"), False),
        ("torchattacks:PGD", ("Linf",), False),
        ("torchattacks:PIFGSM", ("Linf",), False),
        ("torchattacks:CW", ("L2",), True),
        ("torchattacks:SparseFool", ("L0",), True),
        ("torchattacks:FAB", ("Linf", "L2"), False),
        ("torchattacks:GN", ("none",), False),
        ("foolbox:LinfPGD", ("Linf",), False),
        ("foolbox:L2DeepFoolAttack", ("L2",), True),
        ("foolbox:HopSkipJumpAttack", ("L2", "Linf"), True),
        ("foolbox:SpatialAttack", ("none",), False),
    ],
)
def test_norms(name: str, norms: tuple[str, ...], minimum_norm: bool) -> None:
    info = find_attack(name)
    assert (info.norms, info.minimum_norm) == (norms, minimum_norm)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("PGD", "nearest: torchattacks:PGD, foolbox:PGD"),
        ("apgd", "nearest: torchattacks:APGD, apgd-"),
        ("torchattacks:PDG", "torchattacks:PGD"),
        ("nothing like it", "`flatguard attacks` lists them"),
    ],
)
def test_an_unknown_name_lists_the_nearest(name: str, expected: str) -> None:
    with pytest.raises(AttackError) as caught:
        find_attack(name)
    assert expected in str(caught.value)


def test_case_does_not_matter() -> None:
    assert find_attack("torchattacks:pgd").name == "torchattacks:PGD"


def test_a_norm_that_the_attack_does_not_measure() -> None:
    with pytest.raises(AttackError, match="measures Linf, but the norm is L2"):
        build_attack("torchattacks:PGD", Budget("L2", 0.5), 10, {})
