"""Limits of a library are found before the attack, and read the same for every library."""

import re
from typing import Any

import pytest
import torch
from torch import nn

import flatguard
from flatguard.attacks import build_attack, find_attack
from flatguard.attacks.attack import without_gradients
from flatguard.errors import AttackError
from flatguard.geometry.budget import Budget, Norm

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


IMAGES = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
FEW: dict[str, Any] = {"n_queries": 2, "n_iter": 2, "steps": 2, "popsize": 4, "n_restarts": 1}
EPS: dict[Norm, str] = {"Linf": "8/255", "L2": "0.5", "L1": "5", "L0": "20"}


def runs(model: nn.Module, attack: str, norm: Norm) -> None:
    few = {name: FEW[name] for name in find_attack(attack).parameters if name in FEW}
    with torch.no_grad():
        labels = model(IMAGES).argmax(1)
    flatguard.evaluate(
        model, attack, norm=norm, eps=EPS[norm], data=(IMAGES, labels), attack_args=few,
        checks="none",
    )  # fmt: skip


@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize("name", ["apgd-t", "torchattacks:APGDT"])
def test_the_advice_on_classes_was_tried(name: str, norm: Norm) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 2)).eval()
    with pytest.raises(AttackError) as caught:
        runs(model, name, norm)
    assert str(caught.value).endswith("; use apgd-ce, fab or square")
    for each in ("apgd-ce", "fab", "square"):
        runs(model, each, norm)


def test_the_advice_of_jsma_was_tried() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 2)).eval()
    with pytest.raises(AttackError) as caught:
        runs(model, "torchattacks:JSMA", "L0")
    assert str(caught.value).endswith("; use torchattacks:OnePixel or torchattacks:Pixle")
    for each in ("torchattacks:OnePixel", "torchattacks:Pixle"):
        runs(model, each, "L0")


class Cut(nn.Module):
    """A model without a gradient in its input."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(192, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(images.detach().flatten(1))
        return logits


@pytest.mark.parametrize("norm", ["Linf", "L2", "L1", "L0"])
def test_the_advice_without_gradients_was_tried(norm: Norm) -> None:
    attacks: dict[Norm, str] = {"Linf": "torchattacks:PGD", "L2": "torchattacks:PGDL2"}
    model = Cut().eval()
    if norm in attacks:
        with pytest.raises(AttackError, match=re.escape(without_gradients(norm))):
            runs(model, attacks[norm], norm)
    runs(model, without_gradients(norm).removeprefix("--attack "), norm)
