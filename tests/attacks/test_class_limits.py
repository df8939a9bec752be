"""Limits of a library are found before the attack, and read the same for every library."""

import pytest

from flatguard.attacks import build_attack
from flatguard.errors import AttackError
from flatguard.geometry.budget import Budget

LINF = Budget("Linf", 0.03)


@pytest.mark.parametrize(
    ("name", "args", "needed"),
    [
        ("apgd-dlr", {}, 3), ("rand", {}, 3), ("apgd-t", {}, 4), ("standard", {}, 4),
        ("torchattacks:APGD", {"loss": "dlr"}, 3), ("torchattacks:UPGD", {"loss": "dlr"}, 3),
        ("torchattacks:AutoAttack", {"version": "rand"}, 3),
        ("torchattacks:APGDT", {}, 4), ("torchattacks:AutoAttack", {}, 4),
    ],
)  # fmt: skip
def test_dlr_needs_classes(name: str, args: dict[str, str], needed: int) -> None:
    expected = f"^{name} uses a DLR loss that needs {needed} classes, the model has {needed - 1}; "
    with pytest.raises(AttackError, match=expected):
        build_attack(name, LINF, needed - 1, args)
    build_attack(name, LINF, needed, args)


def test_jsma_aims_at_one_of_ten_classes() -> None:
    with pytest.raises(AttackError, match="needs 10 classes, the model has 2"):
        build_attack("torchattacks:JSMA", Budget("L0", 5.0), 2, {})
    build_attack("torchattacks:JSMA", Budget("L0", 5.0), 10, {})


@pytest.mark.parametrize("name", ["torchattacks:APGD", "torchattacks:FAB", "fab-t", "square"])
def test_other_losses_take_two_classes(name: str) -> None:
    assert build_attack(name, LINF, 2, {}).info.name == name
