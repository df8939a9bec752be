"""The numbers of an attack whose result is known."""

import gc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.architectures import tiny
from support.defences import OffGrid
from support.failing import Half, TurnsNan
from torch import nn

import flatguard
from flatguard.errors import ModelError
from flatguard.execution import attempt
from flatguard.recording.recorder import Recorder

Images = tuple[torch.Tensor, torch.Tensor]


@pytest.mark.parametrize("attack", ["torchattacks:PGD", "apgd-ce", "foolbox:LinfPGD", "square"])
def test_robust_accuracy_of_a_model_whose_optimum_is_known(attack: str) -> None:
    """Mean brightness m moves by at most eps, so x is robust exactly if |m - 1/2| > eps."""
    brightness = torch.tensor([0.1, 0.3, 0.4, 0.44, 0.47, 0.53, 0.56, 0.6, 0.7, 0.9])
    images = brightness.view(-1, 1, 1, 1).expand(-1, 3, 4, 4).contiguous()
    labels = (brightness > 0.5).long()
    args = {"n_queries": 500} if attack == "square" else {}
    run = flatguard.evaluate(
        Half().eval(), attack, data=(images, labels), eps="0.05", norm="Linf", seed=1,
        attack_args=args,
    )  # fmt: skip
    assert run.summary["clean_accuracy"] == 1.0
    assert run.summary["robust_accuracy"] == 0.8
    assert run.samples["robust"].tolist() == [True] * 4 + [False] * 2 + [True] * 4
    assert run.summary["outside_budget"] == 0


def test_a_minimum_norm_attack_counts_only_within_eps() -> None:
    """DeepFool fools all, at distances from 0.1 to 2.8; only the near ones count."""
    brightness = torch.tensor([0.1, 0.48, 0.52, 0.9])
    images = brightness.view(-1, 1, 1, 1).expand(-1, 3, 4, 4).contiguous()
    labels = (brightness > 0.5).long()
    run = flatguard.evaluate(
        Half().eval(), "foolbox:L2DeepFoolAttack", data=(images, labels), eps="0.3",
        attack_args={"candidates": 2},
    )  # fmt: skip
    assert run.samples["robust"].tolist() == [True, False, False, True]
    fooled = (run.samples["adv_prediction"] != run.samples["label"]).tolist()
    assert fooled == [True] * 4
    assert run.summary["outside_budget"] == 2


def test_misclassified_images_are_not_robust(tiny_data: Images) -> None:
    torch.manual_seed(0)
    model = tiny().eval()
    x, _ = tiny_data
    right = model(x).argmax(1)
    labels = torch.where(torch.arange(12) < 6, right, (right + 1) % 4)
    run = flatguard.evaluate(model, "torchattacks:VANILA", data=(x, labels))
    assert run.summary["clean_accuracy"] == run.summary["robust_accuracy"] == 0.5
    assert run.summary["clean_interval"] == run.summary["robust_interval"]


def test_nan_on_a_later_image_leaves_nothing_behind(tmp_path: Path) -> None:
    x = torch.full((12, 3, 8, 8), 0.7)
    x[10] = 0.95
    with pytest.raises(ModelError, match="1 of the clean images, the first of them sample 10"):
        flatguard.evaluate(
            TurnsNan(),
            "torchattacks:FGSM",
            data=(x, torch.zeros(12, dtype=torch.long)),
            eps="1/255",
            out=tmp_path / "run",
        )
    assert list(tmp_path.iterdir()) == []


def test_nan_under_attack_is_no_robustness() -> None:
    x = torch.full((3, 3, 8, 8), 0.89)
    model = TurnsNan().eval()
    y = model(x).argmax(1)
    run = flatguard.evaluate(
        model, "torchattacks:GN", data=(x, y), attack_args={"std": 5.0}, seed=3
    )
    assert run.summary["clean_accuracy"] == 1.0
    assert run.samples["adv_margin"].isna().all()  # noise drags every mean to one half
    assert run.summary["robust_accuracy"] == 0.0


def test_nan_from_step_seven_on_is_reported_at_that_step(tiny_data: Images) -> None:
    class Breaks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.steps = tiny(), 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.steps += torch.is_grad_enabled() and x.requires_grad
            return self.net(x) * (float("nan") if self.steps > 7 else 1.0)

    run = flatguard.evaluate(Breaks(), "torchattacks:PGD", data=tiny_data, eps="8/255")
    assert run.complete
    assert run.summary["warnings"] == [
        "the model gave NaN or infinite logits from call 7 on (samples 0 to 11)"
    ]
    lost = run.trajectory.groupby("call")["loss"].apply(lambda loss: loss.isna().all())
    assert lost.tolist() == [False] * 7 + [True] * 3
    assert run.summary["robust_accuracy"] == 0.0  # NaN decides nothing, so nothing is right


def test_the_same_spec_gives_the_same_bits_and_another_seed_does_not(tiny_data: Images) -> None:
    torch.manual_seed(0)
    model = tiny().eval()
    digests = []
    for seed in (0, 0, 1):
        np.random.seed(seed + 5)  # the caller's generators do not matter
        torch.manual_seed(seed + 9)
        run = flatguard.evaluate(
            model, "torchattacks:PGD", data=tiny_data, eps="8/255", batch_size=5, seed=seed
        )
        digests.append(run.summary["adversarial_sha256"])
    assert digests[0] == digests[1] != digests[2]


def recorders() -> set[int]:
    return {id(found) for found in gc.get_objects() if type(found) is Recorder}


def test_a_block_is_forgotten_when_it_is_done(tmp_path: Path) -> None:
    """Without the collector of cycles, which may wait for many blocks."""
    gc.collect()
    before = recorders()  # failed tests keep theirs
    gc.disable()
    try:
        flatguard.evaluate(
            tiny().eval(), "torchattacks:PGD", data=(torch.rand(4, 3, 8, 8), torch.arange(4)),
            eps="1/255", batch_size=2, checks="none", out=tmp_path / "run",
        )  # fmt: skip
        assert recorders() <= before
    finally:
        gc.enable()


@pytest.mark.parametrize("factor", [-1.0, 0.0])
@pytest.mark.parametrize("attack", ["square", "torchattacks:Square", "apgd-ce"])
def test_an_attack_that_fools_all_at_once_shows_the_model_no_empty_batch(
    attack: str, factor: float, tiny_data: Images, tmp_path: Path
) -> None:
    """Square looks at the samples that are left before it asks whether any are; with a
    margin of 0 none is left, and none counts as fooled."""
    images, _ = tiny_data
    images = (images * 255).round() / 255
    torch.manual_seed(0)
    net = tiny().eval()
    labels = net(images).argmax(dim=1)
    run = flatguard.evaluate(
        OffGrid(net, factor).eval(), attack, data=(images[labels > 0], labels[labels > 0]),
        norm="Linf", eps=0.03, batch_size=6, out=tmp_path / "run", checks="none",
    )  # fmt: skip
    assert not run.samples["failed"].any()
    assert run.summary["robust_accuracy"] == 0.0


class Purifies(nn.Module):
    """Moves its input along a gradient of its own, and notes the modes that it is called in."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.modes = nn.Linear(48, 3), list[tuple[bool, bool]]()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.modes.append((torch.is_grad_enabled(), torch.is_inference_mode_enabled()))
        with torch.enable_grad():
            moved = x.detach().flatten(1).requires_grad_()
            (step,) = torch.autograd.grad(self.layer(moved).amax(1).sum(), moved)
        out: torch.Tensor = self.layer(x.flatten(1) + 0.01 * step.sign())
        return out


def test_our_own_passes_build_no_graph_and_leave_a_model_its_own_gradients(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Inference mode would be as cheap, and a model that differentiates inside would fail."""
    torch.manual_seed(0)
    model, images = Purifies().eval(), torch.rand(5, 3, 4, 4)
    labels = model(images).argmax(1)
    modes = list[tuple[bool, bool]]()
    measured = attempt._measured

    def watched(context: Any, *given: Any) -> Any:
        before = len(context.target.model.modes)
        found = measured(context, *given)
        modes.extend(context.target.model.modes[before:])
        return found

    monkeypatch.setattr(attempt, "_measured", watched)
    run = flatguard.evaluate(
        model, "torchattacks:FGSM", data=(images, labels), norm="Linf", eps="0.01", checks="none",
        out=tmp_path / "run",
    )  # fmt: skip
    assert modes == [(False, False)] * 2  # the clean pass and the verification
    assert run.summary["clean_accuracy"] == 1.0
    with torch.inference_mode(), pytest.raises(RuntimeError):
        model(images)
