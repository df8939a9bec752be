"""A target: the mode of its model, its hash, its head, and scaling its logits."""

from typing import Any

import pytest
import torch
from support.architectures import tiny
from torch import nn

from flatguard.errors import UsageError
from flatguard.targets import make_target, prepare

IMAGES = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def test_training_mode_is_left_and_reported() -> None:
    model = tiny().train()
    target = make_target(model, "m", "here")
    assert not model.training
    assert target.notes == ("the model was in training mode; it is evaluated in eval mode",)
    assert make_target(tiny().eval(), "m", "here").notes == ()


def test_one_part_in_training_mode_is_enough() -> None:
    model = nn.Sequential(tiny(), nn.Dropout()).eval()
    model[1].train()
    assert make_target(model, "m", "here").notes
    assert not model[1].training


def test_scaling_moves_no_decision() -> None:
    torch.manual_seed(0)
    model = tiny().eval()
    before = model(IMAGES)
    scaled = prepare(make_target(model, "t", "here"), IMAGES, logit_scale=100.0).model
    assert torch.allclose(scaled(IMAGES), 100.0 * before, rtol=1e-5)
    assert torch.equal(model(IMAGES), before)  # the caller's model is left alone


@pytest.mark.parametrize("scale", [1e-50, 1e40])
def test_a_scale_that_float32_cannot_hold(scale: float) -> None:
    with pytest.raises(UsageError, match="float32 cannot hold"):
        prepare(make_target(tiny().eval(), "t", "here"), IMAGES, logit_scale=scale)


def test_scaling_needs_a_head() -> None:
    model = nn.Sequential(tiny(), nn.Softmax(dim=1)).eval()
    with pytest.raises(UsageError, match=r"--logit-scale needs a final linear layer"):
        prepare(make_target(model, "t", "here"), IMAGES, logit_scale=2.0)


def test_a_named_head_that_is_none() -> None:
    with pytest.raises(UsageError, match="--head 1:"):
        prepare(make_target(tiny(), "t", "here"), IMAGES, head="1")


def test_the_hash_sees_every_weight_and_nothing_else() -> None:
    torch.manual_seed(0)
    model = tiny()
    first = make_target(model, "a", "x").weights_sha256
    assert make_target(model, "b", "y").weights_sha256 == first
    with torch.no_grad():
        model[1].bias[3] += 1e-6
    assert make_target(model, "a", "x").weights_sha256 != first


class Beside(nn.Module):
    """Holds a layer in training mode where `eval()` does not reach it."""

    def __init__(self, kind: str):
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(192, 4))
        layer = nn.Dropout(0.9)
        self.held: Any = {"list": [layer], "dict": {"drop": layer}, "closure": lambda x: layer(x)}
        self.kind, self.held = kind, self.held[kind]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        layer = {"list": lambda: self.held[0], "dict": lambda: self.held["drop"]}
        drop = layer[self.kind]() if self.kind in layer else self.held
        logits: torch.Tensor = drop(self.net(images))
        return logits


@pytest.mark.parametrize("kind", ["list", "dict", "closure"])
def test_a_module_that_is_not_registered_is_in_eval_mode(kind: str) -> None:
    target = make_target(Beside(kind).eval(), "beside", "here")
    images = torch.rand(4, 3, 8, 8)
    assert torch.equal(target.model(images), target.model.net(images))
    assert "held" in target.notes[0]
    assert "not registered" in target.notes[0]
