"""Every attack: its arguments are checked, and a run is reproducible and has no side effects."""

from typing import Any

import pytest
import torch
from support.architectures import tiny
from torch import nn

from flatguard.attacks import build_attack, find_attack, parse_args
from flatguard.attacks.attack import Attack, parse_value
from flatguard.attacks.monitor import Monitor
from flatguard.errors import AttackError
from flatguard.geometry.budget import Budget
from flatguard.geometry.distance import distance, within

LINF = Budget("Linf", 8 / 255)


Images = tuple[torch.Tensor, torch.Tensor]


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
    attack = build_attack("foolbox:LinfPGD", LINF, 4, {"abs_stepsize": "x"})
    with pytest.raises(AttackError, match=r"foolbox:LinfPGD failed: AttributeError"):
        attack.perturb(model, *tiny_data, seed=0)


def test_floats_where_whole_numbers_are_meant() -> None:
    """The manifest and the library get an int; a part of a step is refused before the attack."""
    for name, argument in (("torchattacks:PGD", "steps"), ("square", "n_queries"),
                           ("apgd-ce", "n_iter"), ("foolbox:LinfPGD", "restarts")):  # fmt: skip
        steps = build_attack(name, LINF, 4, {argument: 10.0}).args[argument]
        assert (steps, type(steps)) == (10, int)
        with pytest.raises(AttackError, match=f"expected a whole number for {argument}"):
            build_attack(name, LINF, 4, {argument: 2.5})
    assert build_attack("torchattacks:CW", Budget("L2", 1.0), 4, {"c": 0.5}).args["c"] == 0.5


def test_an_error_on_a_single_image_names_the_batch(tiny_data: Images) -> None:
    class Squeezes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = tiny()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.net(x).squeeze()

    images, labels = tiny_data
    attack = build_attack("torchattacks:PGD", LINF, 4, {"steps": 1})
    with pytest.raises(AttackError, match="a single image: does the model take a batch of one"):
        attack.perturb(Squeezes().eval(), images[:1], labels[:1], seed=0)


def test_a_model_in_inference_mode_runs_under_the_advised_attack(tiny_data: Images) -> None:
    class Inference(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = tiny()

        @torch.inference_mode()
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.net(x)

    attack = build_attack("square", LINF, 4, {"n_queries": 5})
    found = attack.perturb(Inference().eval(), *tiny_data, seed=0).images
    assert bool(within(found, tiny_data[0], LINF).all())


class Shrinking(Attack):
    """Returns images of another shape, after a call on an empty batch."""

    def _run(
        self, model: nn.Module, images: torch.Tensor, labels: torch.Tensor, seed: int,
        monitor: Monitor,
    ) -> torch.Tensor:  # fmt: skip
        self.empty = model(images[:0])
        return images[:2]

    def effective_args(self) -> dict[str, Any]:
        return {"steps": 7}


def test_results_of_another_shape_are_refused(model: nn.Module, tiny_data: Images) -> None:
    attack = Shrinking(find_attack("torchattacks:PGD"), LINF, 4)
    with pytest.raises(AttackError, match=r"expected images of shape \(12, 3, 8, 8\) back, got"):
        attack.perturb(model, *tiny_data, seed=0)
    assert attack.empty.shape == (0, 4)
    assert attack.expected_calls() == 7


def test_a_model_without_gradient_gets_advice(tiny_data: Images) -> None:
    class Rounding(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = tiny()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.net(x.detach()).detach()

    attack = build_attack("torchattacks:PGD", LINF, 4, {"steps": 1})
    with pytest.raises(AttackError, match="attack it with --attack square"):
        attack.perturb(Rounding().eval(), *tiny_data, seed=0)
