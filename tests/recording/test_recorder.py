"""The recorder sees every call, changes nothing, and says what it could not measure."""

import random
import sys

import foolbox
import numpy as np
import pandas as pd
import pytest
import torch
import torchattacks
from pyautoattack import AutoAttack
from support.architectures import tiny
from torch import nn

import flatguard
import flatguard.recording.recorder as recorder_module
from flatguard.attacks import build_attack
from flatguard.data.dataset import Batch
from flatguard.errors import AttackError, DataError, ModelError, UsageError
from flatguard.geometry.budget import Budget
from flatguard.geometry.decision import cross_entropy
from flatguard.targets import Target

EPS = 8 / 255
Images = tuple[torch.Tensor, torch.Tensor]


def pgd(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return torchattacks.PGD(model, eps=EPS, steps=4)(x, y)


def deepfool(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return torchattacks.DeepFool(model, steps=3)(x, y)


def foolbox_pgd(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1))
    return foolbox.attacks.LinfPGD(steps=4)(wrapped, x, y, epsilons=EPS)[1]


def autoattack(part: str, model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    attack = AutoAttack(model, eps=EPS, version="custom", attacks=[part], seed=5)
    attack.apgd.n_iter = attack.fab.n_iter = 4
    attack.apgd.n_restarts = attack.fab.n_restarts = 2
    attack.square.n_queries = 20
    return attack.run_standard_evaluation(x, y, batch_size=len(x))[0]


ATTACKS = {
    "pgd": pgd,
    "deepfool": deepfool,
    "foolbox": foolbox_pgd,
    "apgd-ce": lambda *a: autoattack("apgd-ce", *a),
    "fab": lambda *a: autoattack("fab", *a),
    "square": lambda *a: autoattack("square", *a),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_the_attack_does_not_notice(name: str, model: nn.Module, tiny_data: Images) -> None:
    x, y = tiny_data
    states, results = [], []
    for recorded in (False, True):
        torch.manual_seed(11)
        np.random.seed(11)
        if recorded:
            with flatguard.Recorder(model, x, y) as recorder:
                results.append(ATTACKS[name](recorder.model, x, y))
            assert recorder.forwards > len(x)
        else:
            results.append(ATTACKS[name](model, x, y))
        states.append((torch.get_rng_state(), np.random.get_state()[1]))
    assert torch.equal(*results)
    assert torch.equal(states[0][0], states[1][0])
    assert (states[0][1] == states[1][1]).all()
    assert sys.gettrace() is None or "coverage" in repr(sys.gettrace()).lower()


def test_autoattacks_check_for_dynamic_defences_is_not_set_off(
    model: nn.Module, tiny_data: Images, caplog: pytest.LogCaptureFixture
) -> None:
    x, y = tiny_data
    with flatguard.Recorder(model, x, y) as recorder:
        autoattack("apgd-ce", recorder.model, x, y)
    assert "dynamic" not in caplog.text


def hooks_of(model: nn.Module) -> list[int]:
    return [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]


def test_everything_is_as_found_afterwards_also_when_the_attack_raises(
    model: nn.Module, tiny_data: Images
) -> None:
    x, y = tiny_data
    model.train()
    model[2].eval()
    recorder = flatguard.Recorder(model, x, y)
    assert recorder.model is model
    assert [m.training for m in model] == [True, True, False, True]

    def fail() -> None:
        with recorder:
            model(x)
            raise RuntimeError("halfway")

    with pytest.raises(RuntimeError, match="halfway"):
        fail()
    assert sum(hooks_of(model)) == 0
    assert recorder.calls == 1
    model(x)
    assert recorder.calls == 1
    assert torch.is_grad_enabled()


class FailsLater(nn.Module):
    """Raises at the seventh call."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.extra, self.left = tiny(), nn.Dropout(), 6

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.left:
            raise RuntimeError("at the seventh call")
        self.left -= 1
        return self.net(x)


@pytest.mark.parametrize("name", ["torchattacks:PGD", "foolbox:LinfPGD", "apgd-ce"])
def test_an_attack_that_raises_midway_leaves_all_as_found(name: str, tiny_data: Images) -> None:
    x, y = tiny_data
    budget = Budget("Linf", EPS)
    model = FailsLater().train()
    model.net.eval()
    attack = build_attack(name, budget, 4, {})
    recorder = flatguard.Recorder(model, x, y, budget=budget, order=attack.info.order)
    model.left = 6

    def trace(*_: object) -> None:
        return None

    modes = [module.training for module in model.modules()]
    streams = (torch.get_rng_state(), np.random.get_state()[1], random.getstate())
    before = sys.gettrace()
    sys.settrace(trace)
    try:
        with pytest.raises(AttackError, match="at the seventh call"), recorder:
            attack.perturb(model, x, y, seed=5, monitor=recorder)
        traced = sys.gettrace()
    finally:
        sys.settrace(before)
    assert recorder.calls == 6
    assert len(recorder.trajectory()) == recorder.forwards
    assert traced is trace
    assert sum(hooks_of(model)) == 0
    assert torch.is_grad_enabled()
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), streams[0])
    assert (np.random.get_state()[1] == streams[1]).all()
    assert random.getstate() == streams[2]


def test_a_stochastic_models_stream_is_not_touched(tiny_data: Images) -> None:
    class Noisy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = tiny()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.net(x + 0.1 * torch.randn_like(x))

    x, y = tiny_data
    model = Noisy().eval()
    torch.manual_seed(3)
    bare = model(x)
    torch.manual_seed(3)
    with flatguard.Recorder(model, x, y) as recorder:
        recorded = recorder.model(x)
    assert torch.equal(bare, recorded)


def test_calls_and_rows_are_counted(model: nn.Module, tiny_data: Images) -> None:
    x, y = tiny_data
    seen: list[int] = []
    with flatguard.Recorder(model, x, y, on_call=seen.append, first_sample=100) as recorder:
        pgd(model, x, y)
    frame = recorder.trajectory()
    assert recorder.calls == 4
    assert recorder.forwards == recorder.backwards == 48
    assert seen == [12] * 4
    assert frame["sample"].tolist() == list(range(100, 112)) * 4
    assert frame["call"].tolist() == [c for c in range(4) for _ in range(12)]
    assert (frame["linf"] <= EPS * (1 + 1e-5)).all()


def test_two_backward_passes_over_one_forward_count_twice(
    model: nn.Module, tiny_data: Images
) -> None:
    x, y = tiny_data
    with flatguard.Recorder(model, x, y) as recorder:
        inputs = x.clone().requires_grad_()
        logits = model(inputs)
        for label in (0, 1):
            torch.autograd.grad(logits[:, label].sum(), inputs, retain_graph=True)
    assert (recorder.forwards, recorder.backwards) == (12, 24)


def test_an_attack_on_shrinking_subsets_is_attributed(demo: Target, demo_batch: Batch) -> None:
    """APGD goes on with the images that still resist: every row must find its own."""
    x, y = demo_batch.images, demo_batch.labels
    budget = Budget("Linf", 1 / 255)
    with flatguard.Recorder(demo.model, x, y, head=demo.head, budget=budget) as recorder:
        attack = AutoAttack(demo.model, eps=1 / 255, version="custom", attacks=["apgd-ce"], seed=0)
        attack.apgd.n_iter = 3
        attack.run_standard_evaluation(x, y, batch_size=20)
    frame = recorder.trajectory()
    sizes = frame.groupby("call").size()
    assert sizes.min() < 20 <= sizes.max()
    assert recorder.rows_unassigned == 0
    truth = frame[frame["call"] == 0]
    assert truth["sample"].tolist() == list(range(20))
    # The label decides the loss, so a wrong assignment would show here.
    assert (frame["linf"] <= 1 / 255 * (1 + 1e-4)).all()


def test_rows_of_other_images_stay_unassigned(model: nn.Module, tiny_data: Images) -> None:
    x, y = tiny_data
    with flatguard.Recorder(model, x, y, budget=Budget("Linf", EPS)) as recorder:
        model(torch.cat([x[:2], 1 - x[2:4], x[4:5]]))
    frame = recorder.trajectory()
    assert frame["sample"].isna().tolist() == [False, False, True, True, False]
    assert frame["sample"].dropna().tolist() == [0, 1, 4]
    lost = frame[frame["sample"].isna()]
    assert lost[["loss", "margin", "linf", "l2"]].isna().all(axis=None)
    assert lost[["log_kappa", "confidence", "feature_norm"]].notna().all(axis=None)
    assert recorder.rows_unassigned == 2


def test_a_head_that_stops_being_the_head_makes_kappa_missing(tiny_data: Images) -> None:
    class Switching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.bend = tiny(), False

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            z = self.net(x)
            return torch.where(torch.arange(len(x))[:, None] < 5, z, z**3) if self.bend else z

    x, y = tiny_data
    torch.manual_seed(0)
    model = Switching().eval()
    with flatguard.Recorder(model, x, y) as recorder:
        model(x)
        model.bend = True
        model(x)
    missing = recorder.trajectory()["log_kappa"].isna().tolist()
    assert missing == [False] * 12 + [False] * 5 + [True] * 7


def test_no_head_leaves_the_rest(tiny_data: Images) -> None:
    x, y = tiny_data
    model = nn.Sequential(tiny(), nn.Softmax(dim=1)).eval()
    with flatguard.Recorder(model, x, y) as recorder:
        model(x)
    assert recorder.head is None
    assert recorder.head_reason
    frame = recorder.trajectory()
    assert frame[["log_kappa", "trace", "feature_norm"]].isna().all(axis=None)
    assert frame[["loss", "confidence", "margin"]].notna().all(axis=None)


def test_bad_arguments(model: nn.Module, tiny_data: Images) -> None:
    x, y = tiny_data
    with pytest.raises(DataError, match="expected a label an image"):
        flatguard.Recorder(model, x, y[:3])
    with pytest.raises(UsageError, match="no layer fc"):
        flatguard.Recorder(model, x, y, head="fc")
    for images, labels, expected in [
        ((x * 255).byte(), y, "floating-point images"),
        (x, y.float(), "integer labels"),
        (x[:0], y[:0], "a label an image"),
        (x, y - 1, "labels from 0 on"),
        (x, [0] * 12, "integer labels"),
    ]:
        with pytest.raises(DataError, match=expected):
            flatguard.Recorder(model, images, labels)
    with flatguard.Recorder(model, x, y + 3), pytest.raises(DataError, match="labels below 4"):
        model(x)
    with flatguard.Recorder(model, x, y.to(torch.uint8)) as recorder:
        model(x)
    assert recorder.calls == 1


def test_a_sink_gets_everything_in_order(
    model: nn.Module, tiny_data: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = tiny_data
    monkeypatch.setattr(recorder_module, "PIECE_ROWS", 30)
    pieces: list[pd.DataFrame] = []
    with flatguard.Recorder(model, x, y) as whole:
        pgd(model, x, y)
    with flatguard.Recorder(model, x, y, sink=pieces.append) as recorder:
        pgd(model, x, y)
    recorder.flush()
    assert len(pieces) == 2
    assert pd.concat(pieces)["call"].tolist() == whole.trajectory()["call"].tolist()
    assert len(recorder.trajectory()) == 0


@pytest.mark.parametrize("gradients", [False, True])
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_it_records_the_same_where_the_caller_needs_no_gradients(
    mode: type[torch.no_grad], gradients: bool, model: nn.Module, tiny_data: Images
) -> None:
    """An attack that needs them runs inside, and the caller's mode is back afterwards."""
    tables = []
    for entered in (torch.enable_grad, mode):
        with entered():
            before = (torch.is_grad_enabled(), torch.is_inference_mode_enabled())
            images, labels = tiny_data[0].clone(), tiny_data[1].clone()
            torch.manual_seed(0)
            with flatguard.Recorder(model, images, labels, gradients=gradients) as recorder:
                pgd(recorder.model, images, labels)
            assert (torch.is_grad_enabled(), torch.is_inference_mode_enabled()) == before
            tables.append(recorder.trajectory())
    pd.testing.assert_frame_equal(*tables)
    assert recorder.backwards == 4 * len(images)


def test_autocast_is_the_attacks_and_not_the_recorders(model: nn.Module, tiny_data: Images) -> None:
    """The numbers are those of the logits that the attack saw, in float64 all the same."""
    images, labels = tiny_data
    with (
        torch.autocast("cpu", dtype=torch.bfloat16),
        flatguard.Recorder(model, images, labels) as recorder,
    ):
        logits = recorder.model(images)
        losses = recorder.trajectory()["loss"]
    assert logits.dtype == torch.bfloat16
    assert losses.tolist() == pytest.approx(cross_entropy(logits, labels).tolist(), rel=1e-6)


class Named(nn.Module):
    """Returns its logits under a name, beside other tensors."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"pixels": x.flatten(1), "logits": self.net(x)}


def test_a_named_output_is_read_inside_only(model: nn.Module, tiny_data: Images) -> None:
    images, labels = tiny_data
    tables, examples = [], []
    for net in (model, Named(model).eval()):
        torch.manual_seed(0)
        with flatguard.Recorder(net, images, labels) as recorder:
            examples.append(pgd(recorder.model, images, labels))
        tables.append(recorder.trajectory())
    pd.testing.assert_frame_equal(*tables)
    assert torch.equal(*examples)
    assert isinstance(net(images), dict)


def test_an_output_without_logits_is_refused(tiny_data: Images) -> None:
    images, labels = tiny_data
    several = Named(nn.Flatten())
    several.forward = lambda x: {"a": x, "b": x}  # type: ignore[method-assign]
    with pytest.raises(ModelError, match=r"expected logits .* got dict of a .*--output a"):
        flatguard.Recorder(several, images, labels)
