"""Foolbox: norms, restarts and targets of its attacks."""

import pytest
import torch
from support.architectures import tiny
from support.segments import segments_of
from torch import nn

import flatguard
from flatguard.attacks import build_attack, find_attack
from flatguard.attacks.foolbox_adapter import _runner_up
from flatguard.errors import AttackError
from flatguard.geometry.budget import Budget

LINF = Budget("Linf", 8 / 255)


Images = tuple[torch.Tensor, torch.Tensor]


def test_foolbox_attacks_with_a_random_start_take_restarts(tiny_data) -> None:
    """Foolbox's own `repeat`: every restart is a run of its own, and the best example stays."""
    torch.manual_seed(0)
    model = tiny().eval()
    runs = [
        flatguard.evaluate(
            model, "foolbox:LinfPGD", data=tiny_data, eps="4/255", checks="none",
            attack_args={"steps": 5, **args},
        )
        for args in ({}, {"restarts": 3})
    ]  # fmt: skip
    once, thrice = runs
    assert thrice.trajectory["call"].nunique() > 2 * once.trajectory["call"].nunique()
    assert sorted(thrice.trajectory["restart"].dropna().unique()) == [0, 1, 2]
    assert thrice.trajectory["sample"].notna().all()
    fallen = ~once.samples["robust"]
    assert not thrice.samples.loc[fallen, "robust"].any()
    with pytest.raises(AttackError, match="no argument 'restarts'"):
        flatguard.evaluate(
            model, "foolbox:L2CarliniWagnerAttack", data=tiny_data, eps=1,
            attack_args={"restarts": 3},
        )  # fmt: skip


def test_a_minimum_norm_attack_measures_in_the_norm_of_the_budget() -> None:
    assert find_attack("foolbox:InversionAttack").norms == ("Linf", "L2", "L1", "L0")
    attack = build_attack("foolbox:InversionAttack", Budget("L1", 3.0), 4, {})
    assert attack._make().distance.p == 1


def test_restarts_are_reported(model: nn.Module, tiny_data: Images) -> None:
    args = {"steps": 1, "restarts": 3}
    found = segments_of("foolbox:LinfPGD", LINF, args, model, *tiny_data)
    assert [segment.restart for segment in found] == [0, 1, 2]
    assert {segment.part for segment in found} == {"LinfProjectedGradientDescentAttack"}


def test_a_targeted_attack_aims_at_the_runner_up(model: nn.Module, tiny_data: Images) -> None:
    images, _ = tiny_data
    labels = model(images).argmax(1)
    expected = model(images).topk(2, dim=1).indices[:, 1]
    assert torch.equal(_runner_up(model, images, labels), expected)


@pytest.mark.parametrize("name", ["BinarizationRefinementAttack", "BoundaryAttack"])
def test_what_an_attack_of_foolbox_needs_is_named(name: str) -> None:
    """The one needs a model that binarises; the other a start, which a constant model never has."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 3)).eval()
    if name == "BoundaryAttack":
        model[1].weight.data.zero_()
    images = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        labels = model(images).argmax(1)
    attack = build_attack(f"foolbox:{name}", Budget("L2", 1.0), 3, {})
    expected = {
        "BinarizationRefinementAttack": "turn each pixel black or white.*; use --attack",
        "BoundaryAttack": "it starts from noise that the model.*; use --attack",
    }[name]
    with pytest.raises(AttackError, match=expected):
        attack.perturb(model, images, labels, 0)
