"""Attacks by name: what is listed, what is refused, and that arguments reach the library."""

from typing import Any

import pytest
import torch
import torchattacks
from support.architectures import tiny
from torch import nn

import flatguard
from flatguard.attacks import build_attack, find_attack, list_attacks, parse_args
from flatguard.attacks.attack import parse_value
from flatguard.errors import AttackError
from flatguard.geometry.budget import Budget
from flatguard.geometry.distance import distance

LINF = Budget("Linf", 8 / 255)
Images = tuple[torch.Tensor, torch.Tensor]


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return tiny().eval()


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


@pytest.mark.parametrize(
    ("name", "args", "expected"),
    [
        ("torchattacks:PGD", {"step": 3}, r"no argument 'step'; nearest: steps; valid: alpha"),
        ("torchattacks:PGD", {"steps": "ten"}, "expected int for steps"),
        ("torchattacks:PGD", {"random_start": 1}, "expected bool for random_start"),
        ("torchattacks:PGD", {"steps": True}, "expected int for steps"),
        ("torchattacks:PGD", {"eps": 0.1}, "give the radius with --eps"),
        ("torchattacks:PIFGSM", {"max_epsilon": 0.1}, "give the radius with --eps"),
        ("torchattacks:APGD", {"norm": "L2"}, "give the norm with --norm"),
        ("foolbox:LinfPGD", {"epsilons": 0.1}, "give the radius with --eps"),
        ("apgd-ce", {"n_iters": 3}, r"nearest: n_iter; valid: n_iter, n_restarts"),
        ("standard", {"n_iter": 3}, "valid: none"),
        ("torchattacks:MultiAttack", {}, "needs attack objects"),
    ],
)
def test_arguments_are_checked(name: str, args: dict[str, Any], expected: str) -> None:
    with pytest.raises(AttackError, match=expected):
        build_attack(name, Budget(find_attack(name).norms[0], 8 / 255), 10, args)


def test_a_required_argument() -> None:
    with pytest.raises(AttackError, match="needs --attack-arg steps="):
        build_attack("foolbox:VirtualAdversarialAttack", Budget("L2", 0.5), 10, {})


def test_a_norm_that_the_attack_does_not_measure() -> None:
    with pytest.raises(AttackError, match="measures Linf, but the norm is L2"):
        build_attack("torchattacks:PGD", Budget("L2", 0.5), 10, {})


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("10", 10), ("0.5", 0.5), ("2/255", 2 / 255), ("true", True), ("False", False),
        ("none", None), ("(2, 10)", (2, 10)), ("ce", "ce"), ("1e-3", 1e-3), ("a/b", "a/b"),
    ],
)  # fmt: skip
def test_values_from_a_command_line(text: str, value: Any) -> None:
    assert parse_value(text) == value
    assert type(parse_value(text)) is type(value)


def test_pairs_from_a_command_line() -> None:
    assert parse_args(["steps=10", "alpha=2/255"]) == {"steps": 10, "alpha": 2 / 255}
    for bad in (["steps"], ["=3"], ["a=1", "a=2"]):
        with pytest.raises(AttackError, match="--attack-arg"):
            parse_args(bad)


SHORT: dict[str, tuple[str, float, dict[str, Any]]] = {
    "apgd-ce": ("Linf", 0.03, {"n_iter": 3}),
    "apgd-dlr": ("L2", 0.5, {"n_iter": 3, "n_restarts": 1}),
    "apgd-t": ("Linf", 0.03, {"n_iter": 3}),
    "fab": ("L1", 5.0, {"n_iter": 3, "n_restarts": 1}),
    "fab-t": ("Linf", 0.03, {"n_iter": 3}),
    "square": ("Linf", 0.03, {"n_queries": 10}),
    "torchattacks:PGD": ("Linf", 0.03, {"steps": 3}),
    "torchattacks:APGD": ("L2", 0.5, {"steps": 3}),
    "torchattacks:CW": ("L2", 0.5, {"steps": 3}),
    "torchattacks:OnePixel": ("L0", 3.0, {"steps": 2, "popsize": 2}),
    "torchattacks:GN": ("none", 0.0, {}),
    "foolbox:LinfPGD": ("Linf", 0.03, {"steps": 3}),
    "foolbox:L2DeepFoolAttack": ("L2", 0.5, {"steps": 3}),
    "foolbox:HopSkipJumpAttack": ("Linf", 0.1, {"steps": 1, "initial_gradient_eval_steps": 5}),
    "foolbox:InversionAttack": ("L1", 50.0, {}),
    "foolbox:PointwiseAttack": ("L0", 50.0, {}),
    "foolbox:GenAttack": ("Linf", 0.1, {"steps": 2}),
    "foolbox:DatasetAttack": ("L2", 9.0, {}),
    "foolbox:SpatialAttack": ("none", 0.0, {"num_translations": 2, "num_rotations": 2}),
}


@pytest.mark.parametrize("name", SHORT)
def test_a_real_run_is_reproducible_and_leaves_no_trace(
    name: str, model: nn.Module, tiny_data: Images
) -> None:
    norm, eps, args = SHORT[name]
    budget = Budget(norm, eps or None)
    attack = build_attack(name, budget, 4, args)
    x = tiny_data[0]
    y = model(x).argmax(1)
    before = torch.get_rng_state(), x.clone()
    first = attack.perturb(model, x, y, seed=1).images
    again = attack.perturb(model, x, y, seed=1).images
    assert torch.equal(first, again)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert torch.equal(x, before[1])
    assert first.shape == x.shape
    assert first.is_contiguous()
    assert not first.requires_grad
    if not attack.info.minimum_norm and norm != "none":
        assert budget.contains(distance(first, x, norm)).all()


def test_another_seed_is_another_run(model: nn.Module, tiny_data: Images) -> None:
    x, _ = tiny_data
    for name in ("torchattacks:APGD", "torchattacks:PGD", "apgd-ce"):
        attack = build_attack(name, LINF, 4, {"n_iter": 2} if name == "apgd-ce" else {"steps": 2})
        first = attack.perturb(model, x, model(x).argmax(1), seed=1).images
        assert not torch.equal(first, attack.perturb(model, x, model(x).argmax(1), seed=2).images)


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


def test_what_a_library_prints_stays_off_stdout(
    model: nn.Module, tiny_data: Images, capsys: pytest.CaptureFixture[str]
) -> None:
    class Talking(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = model

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            print("forward")
            return self.net(x)

    build_attack("torchattacks:FGSM", LINF, 4, {}).perturb(Talking(), *tiny_data, seed=0)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "forward" in captured.err


def test_autoattacks_flags_are_kept(model: nn.Module, tiny_data: Images) -> None:
    softmax = nn.Sequential(model, nn.Softmax(dim=1)).eval()
    attack = build_attack("apgd-ce", LINF, 4, {"n_iter": 2})
    warnings = attack.perturb(softmax, *tiny_data, seed=0).warnings
    assert any("probability distribution" in text for text in warnings)


def test_a_debuggers_or_coverages_trace_survives(model: nn.Module, tiny_data: Images) -> None:
    import sys

    def tracer(frame: Any, event: str, argument: Any) -> None:
        return None

    before = sys.gettrace()
    sys.settrace(tracer)
    try:
        build_attack("apgd-ce", LINF, 4, {"n_iter": 1}).perturb(model, *tiny_data, seed=0)
        after = sys.gettrace()
    finally:
        sys.settrace(before)
    assert after is tracer


def test_an_attack_that_raises_becomes_one_line(model: nn.Module, tiny_data: Images) -> None:
    attack = build_attack("torchattacks:PGD", LINF, 4, {"steps": 2.5})
    with pytest.raises(AttackError, match=r"torchattacks:PGD failed: TypeError"):
        attack.perturb(model, *tiny_data, seed=0)


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
