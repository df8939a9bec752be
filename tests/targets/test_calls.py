"""A model is given copies, and what it switches in torch is put back."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import flatguard
from flatguard.environment.torch_state import TorchState
from flatguard.targets import make_target
from flatguard.targets.calls import isolate_calls


def classifier() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 10))


class OutOfPlace(nn.Module):
    """Subtracts 0.5 and divides by 0.25."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = classifier()

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.inner((images - 0.5) / 0.25)
        return logits


class InPlace(OutOfPlace):
    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.inner(images.sub_(0.5).div_(0.25))
        return logits


class ThroughData(OutOfPlace):
    """Writes where autograd does not see it; the gradient is that of the plain network."""

    def forward(self, images: Tensor) -> Tensor:
        images.data.sub_(0.5).div_(0.25)
        logits: Tensor = self.inner(images)
        return logits


class ThroughNumPy(OutOfPlace):
    def forward(self, images: Tensor) -> Tensor:
        images.detach().numpy()[:] -= 0.5
        logits: Tensor = self.inner(images / 0.25)
        return logits


class SometimesInPlace(OutOfPlace):
    """Clips what is darker than most of its clean images are: no first look sees it."""

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = super().forward(images)
        images.clamp_(0.02, 0.98)
        return logits


ATTACKS: list[tuple[str, dict[str, Any]]] = [
    ("square", {"n_queries": 50}),
    ("apgd-ce", {"n_iter": 5}),
    ("torchattacks:PGD", {"steps": 3}),
    ("foolbox:LinfPGD", {"steps": 3}),
]


@pytest.fixture
def data() -> tuple[Tensor, Tensor]:
    images = torch.rand(16, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    return images, OutOfPlace()(images).argmax(1)


@pytest.mark.parametrize(("attack", "args"), ATTACKS)
@pytest.mark.parametrize("kind", [InPlace, ThroughNumPy, SometimesInPlace])
def test_a_forward_that_writes_into_its_input(
    kind: type[nn.Module], attack: str, args: dict[str, Any],
    data: tuple[Tensor, Tensor], tmp_path: Path,
) -> None:  # fmt: skip
    """The caller's images survive, and every number is that of the network that does not write."""
    kept = data[0].clone()
    ask: dict[str, Any] = {
        "attack": attack, "norm": "Linf", "eps": "16/255", "attack_args": args, "data": data,
    }  # fmt: skip
    wanted = flatguard.evaluate(OutOfPlace().eval(), **ask, out=tmp_path / "wanted")
    assert torch.equal(data[0], kept)
    run = flatguard.evaluate(kind().eval(), **ask, out=tmp_path / "run")
    assert torch.equal(data[0], kept)
    # x.sub_(a).div_(b) rounds as (x - a) / b does.
    assert run.samples.equals(wanted.samples)
    assert torch.equal(run.adversarial(0), wanted.adversarial(0))
    assert run.summary["verdict"] == wanted.summary["verdict"]
    assert not any("is random" in finding["summary"] for finding in run.summary["findings"])


def test_a_write_that_autograd_does_not_see(data: tuple[Tensor, Tensor], tmp_path: Path) -> None:
    ask: dict[str, Any] = {
        "attack": "square", "norm": "Linf", "eps": "16/255", "attack_args": {"n_queries": 50},
        "data": data, "checks": "none",
    }  # fmt: skip
    kept = data[0].clone()
    wanted = flatguard.evaluate(OutOfPlace().eval(), **ask, out=tmp_path / "wanted")
    run = flatguard.evaluate(ThroughData().eval(), **ask, out=tmp_path / "run")
    assert torch.equal(data[0], kept)
    assert run.samples.equals(wanted.samples)


def test_the_recorder_alone_records_what_the_attack_gave(data: tuple[Tensor, Tensor]) -> None:
    """By position and by keyword, with and without gradients."""
    images, labels = data
    kept = images.clone()
    for gradients in (False, True):
        tables = []
        for model in (OutOfPlace().eval(), InPlace().eval()):
            x = (images * 0.9).requires_grad_(True)
            with flatguard.Recorder(model, images, labels, gradients=gradients) as recorder:
                recorder.model(x).sum().backward()
                recorder.model(images=images)
            tables.append(recorder.trajectory())
            assert not model._forward_pre_hooks
            assert not model._forward_hooks
        assert tables[0].equals(tables[1])
        assert (tables[0]["linf"][:16] > 0).all()
        assert (tables[0]["linf"][16:] == 0).all()
    assert torch.equal(images, kept)


def test_copies_of_the_model_are_isolated_too() -> None:
    model = InPlace()
    target = make_target(model, "in place", "a test")
    isolate_calls(model)  # once is enough
    assert len(model._forward_pre_hooks) == 1
    for each in (target.model, copy.deepcopy(target.model)):
        images = torch.rand(2, 3, 8, 8)
        kept = images.clone()
        assert torch.equal(each(images), each(images))
        assert torch.equal(images, kept)


def test_the_state_is_put_back_where_a_call_raises() -> None:
    class Raises(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            torch.set_grad_enabled(False)
            torch.set_default_dtype(torch.float64)
            raise ValueError("no")

    model = Raises()
    isolate_calls(model)
    before = TorchState.now()
    for _ in range(2):
        with pytest.raises(ValueError, match="no"):
            model(torch.rand(1, 3, 8, 8))
        assert TorchState.now() == before
