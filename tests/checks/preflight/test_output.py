"""The kind of outputs, from the outputs alone."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from flatguard.checks.preflight.output import output_of


def logits(classes: int = 10, images: int = 50, seed: int = 0) -> torch.Tensor:
    return 3 * torch.randn(images, classes, generator=torch.Generator().manual_seed(seed))


KINDS = {
    "logits": lambda z: z,
    "log-probabilities": lambda z: z.log_softmax(1),
    "probabilities": lambda z: z.softmax(1),
    "sigmoid": lambda z: z.sigmoid(),
    "one-hot": lambda z: F.one_hot(z.argmax(1), z.shape[1]).float(),
    "constant": lambda z: z[:1].expand_as(z),
    "clipped": lambda z: z.clamp(-2, 2),
}


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 999), classes=st.integers(3, 30))
def test_each_kind_is_told_from_the_others(kind: str, seed: int, classes: int) -> None:
    assert output_of(KINDS[kind](logits(classes, 60, seed))).kind == kind


@pytest.mark.parametrize("kind", KINDS)
def test_of_two_classes_too(kind: str) -> None:
    assert output_of(KINDS[kind](logits(2))).kind == kind


def test_the_range_and_the_clips_are_named() -> None:
    found = output_of(logits().clamp(-1.5, 2.5))
    assert (found.lowest, found.highest) == (-1.5, 2.5)
    assert found.detail == "below at -1.5 and above at 2.5"
    assert output_of(F.relu(logits())).detail == "below at 0"


def test_decisions_of_any_height_are_decisions() -> None:
    scaled = 100 * KINDS["one-hot"](logits()) - 50
    assert output_of(scaled).kind == "one-hot"


@pytest.mark.parametrize("shift", [0.0, 40.0, -40.0])
def test_logits_anywhere_are_logits(shift: float) -> None:
    assert output_of(logits() + shift).kind == "logits"
    assert output_of(F.logsigmoid(logits() + 0.1 * shift)).kind == "logits"


@pytest.mark.parametrize("sign", [-1, 1])
def test_a_single_logit_beside_0_is_not_clipped(sign: int) -> None:
    z = sign * (logits(2)[:, :1].abs() + 0.1)
    assert output_of(torch.cat([torch.zeros_like(z), z], dim=1)).kind == "logits"
    clipped = torch.cat([torch.zeros_like(z), z.clamp(-1, 1)], dim=1)
    assert output_of(clipped).kind == "clipped"
