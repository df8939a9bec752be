"""AutoAttack: arguments reach its component attacks, and its warnings and runs are reported."""

import pytest
import torch
from support.segments import segments_of
from torch import nn

from flatguard.attacks import build_attack
from flatguard.errors import AttackError
from flatguard.geometry.budget import Budget

LINF = Budget("Linf", 8 / 255)


Images = tuple[torch.Tensor, torch.Tensor]


def test_arguments_reach_autoattacks_parts() -> None:
    for name, args in {
        "apgd-ce": {"n_iter": 7, "rho": 0.5, "n_restarts": 3},
        "square": {"n_queries": 9, "resc_schedule": True},
        "fab-t": {"n_iter": 5, "n_target_classes": 2},
    }.items():
        effective = build_attack(name, LINF, 10, args).effective_args()
        assert {key: effective[key] for key in args} == args


def test_no_more_target_classes_than_wrong_classes() -> None:
    assert build_attack("apgd-t", LINF, 4, {}).effective_args()["n_target_classes"] == 3
    assert build_attack("apgd-t", LINF, 10, {}).effective_args()["n_target_classes"] == 9


def test_dlr_needs_classes() -> None:
    for name, classes in (("apgd-t", 3), ("standard", 3), ("apgd-dlr", 2), ("rand", 2)):
        with pytest.raises(AttackError, match=r"needs \d classes"):
            build_attack(name, LINF, classes, {})
    build_attack("apgd-dlr", LINF, 3, {})


def test_autoattacks_flags_are_kept(model: nn.Module, tiny_data: Images) -> None:
    softmax = nn.Sequential(model, nn.Softmax(dim=1)).eval()
    attack = build_attack("apgd-ce", LINF, 4, {"n_iter": 2})
    warnings = attack.perturb(softmax, *tiny_data, seed=0).warnings
    assert any("probability distribution" in text for text in warnings)


def test_runs_are_reported_with_restart_and_target(model: nn.Module, tiny_data: Images) -> None:
    budget = Budget("Linf", 1e-6)  # too small to fool, so that every run happens
    images, labels = tiny_data[0], model(tiny_data[0]).argmax(1)
    found = segments_of("apgd-t", budget, {"n_iter": 1, "n_restarts": 2}, model, images, labels)
    assert [(s.part, s.restart, s.target) for s in found] == [
        ("apgd-t", restart, target) for target in (1, 2, 3) for restart in (0, 1)
    ]
    found = segments_of("apgd-ce", budget, {"n_iter": 1, "n_restarts": 3}, model, images, labels)
    assert [(s.part, s.restart, s.target) for s in found] == [
        ("apgd-ce", restart, None) for restart in range(3)
    ]


def test_expected_calls() -> None:
    args = {"n_iter": 5, "n_restarts": 2, "n_target_classes": 3}
    assert build_attack("apgd-t", LINF, 10, args).expected_calls() == 30
    assert build_attack("square", LINF, 10, {"n_queries": 9}).expected_calls() == 9
    assert build_attack("fab", LINF, 10, {}).expected_calls() is None
