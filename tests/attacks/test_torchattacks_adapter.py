"""torchattacks: the adapter fills in budget, classes and seed, and reports the runs."""

import pytest
import torch
from support.segments import segments_of
from torch import nn

from flatguard.attacks import build_attack, find_attack
from flatguard.geometry.budget import Budget

LINF = Budget("Linf", 8 / 255)


Images = tuple[torch.Tensor, torch.Tensor]


@pytest.mark.parametrize(
    ("name", "keeps", "copies", "sequential"),
    [("PGD", True, "none", False), ("PGDRS", False, "consecutive", False),
     ("Pixle", False, "none", True), ("Square", False, "none", False)],
)  # fmt: skip
def test_the_order_of_the_rows(name: str, keeps: bool, copies: str, sequential: bool) -> None:
    order = find_attack(f"torchattacks:{name}").order
    assert (order.keeps, order.copies, order.sequential) == (keeps, copies, sequential)


def test_the_budget_and_the_classes_are_filled_in() -> None:
    args = build_attack("torchattacks:AutoAttack", Budget("L2", 0.5), 7, {}).effective_args()
    assert (args["norm"], args["eps"], args["n_classes"]) == ("L2", 0.5, 7)
    assert args["seed"] == "derived for each block"
    given = build_attack("torchattacks:APGD", LINF, 7, {"seed": 3, "steps": 2}).effective_args()
    assert (given["seed"], given["steps"], given["eps"]) == (3, 2, LINF.eps)


def test_restarts_are_reported(model: nn.Module, tiny_data: Images) -> None:
    images, labels = tiny_data[0], model(tiny_data[0]).argmax(1)
    args = {"steps": 1, "n_restarts": 2}
    found = segments_of("torchattacks:APGD", Budget("Linf", 1e-6), args, model, images, labels)
    assert [(s.part, s.restart, s.eps) for s in found] == [("APGD", 0, 1e-6), ("APGD", 1, 1e-6)]


def test_an_attack_without_restarts_is_one_run(model: nn.Module, tiny_data: Images) -> None:
    (found,) = segments_of("torchattacks:PGD", LINF, {"steps": 2}, model, *tiny_data)
    assert (found.part, found.restart, found.target) == ("PGD", None, None)
