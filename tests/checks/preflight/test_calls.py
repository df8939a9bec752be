"""Calls: seeded, counted, in batches; compared; watched."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from flatguard.checks.preflight.calls import Caller, TrainedParts, difference, watched_input
from flatguard.environment.randomness import preserved

CPU = torch.device("cpu")


class Noisy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.sizes.append(len(x))
        return x.flatten(1) + torch.randn(len(x), 1)


def test_calls_are_seeded_counted_and_in_batches() -> None:
    model, images = Noisy(), torch.rand(7, 1, 2, 2)
    caller = Caller(model, CPU, seed=3, batch=3)
    with preserved(CPU):
        first, again, other = (caller.logits(images, draw=draw) for draw in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert (caller.forwards, model.sizes) == (21, [3, 3, 1] * 3)
    assert not first.requires_grad


def test_the_difference_is_relative_to_the_spread_of_the_logits() -> None:
    one = torch.tensor([[1.0, 3.0], [0.0, 8.0]])
    found = difference(one, one + torch.tensor([[0.0, -0.5], [0.0, 0.0]]))
    assert found.largest == pytest.approx(0.5)  # of 1, the distance from the mean
    assert (found.flips, found.images) == (0, 2)
    assert difference(one, one + 100).largest == pytest.approx(100)
    assert difference(one, one.flip(1)).flips == 2
    assert difference(one, one * math.nan).largest is None
    assert difference(one[:0], one[:0]).largest == 0.0


@pytest.mark.parametrize("training", [True, False])
def test_what_computes_as_in_training_is_noted(training: bool) -> None:
    x = torch.rand(4, 3, 2, 2)
    parts = TrainedParts()
    with parts:
        nn.BatchNorm2d(3).train(training)(x)
        F.dropout(x, 0.5, training)
        F.dropout2d(x, 0.5, training=training)
    assert parts.names == ({"batch normalisation", "dropout"} if training else set())


@pytest.mark.parametrize(
    ("change", "writes"),
    [(lambda x: x.mul_(2), True), (lambda x: x.mul(2), False), (lambda x: x.zero_(), True)],
)
def test_a_write_into_the_input_is_seen(change, writes: bool) -> None:
    class Model(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return change(x).flatten(1)

    model = Model()
    with watched_input(model) as written:
        model(torch.rand(2, 1, 2, 2))
    assert written == [writes]
    assert not model._forward_pre_hooks
