"""A copy of the state before the first call, and a model that forgets."""

import sys
import threading

import pytest
import torch
from support.architectures import tiny
from torch import Tensor, nn

from flatguard.targets.initial import FreshEachCall, initial_copy, with_scaled_head
from flatguard.targets.target import make_target, prepare

X = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Counting(nn.Module):
    """Its answers change with every call; it counts in an attribute, a list and a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.net = tiny()
        self.calls, self.seen = 0, [0.0]
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.seen.append(float(self.calls))
        self.count += 1
        logits: Tensor = self.net(x) + self.count + sum(self.seen)
        return logits


def test_a_model_that_forgets_answers_as_on_its_first_call() -> None:
    model = Counting().eval()
    initial = initial_copy(model)
    assert initial is not None
    first = model(X)
    assert not torch.equal(model(X), first)
    fresh = FreshEachCall(initial)
    for _ in range(3):
        assert torch.equal(fresh(X), first)
    assert (initial.calls, initial.seen, float(initial.count)) == (0, [0.0], 0.0)


def test_the_copy_shares_the_parameters_and_passes_gradients() -> None:
    model = Counting().eval()
    initial = initial_copy(model)
    assert initial is not None
    for (name, one), (_, other) in zip(
        model.named_parameters(), initial.named_parameters(), strict=True
    ):
        assert one is other, name
    x = X.clone().requires_grad_(True)
    FreshEachCall(initial)(x).sum().backward()
    assert x.grad is not None
    assert bool(x.grad.any())


class Memory:
    """Logits by call, behind a lock."""

    def __init__(self) -> None:
        self.lock, self.calls = threading.Lock(), [0]


class Guarded(Counting):
    """It counts in an object that holds what cannot be copied."""

    def __init__(self, inside: object) -> None:
        super().__init__()
        self.memory = Memory()
        self.others = {"one": [inside]}

    def forward(self, x: Tensor) -> Tensor:
        with self.memory.lock:
            self.memory.calls[0] += 1
        logits: Tensor = super().forward(x) + self.memory.calls[0]
        return logits


@pytest.mark.parametrize(
    "inside", [threading.Lock(), sys.stdout, (i for i in range(3)), threading.local()]
)
def test_what_has_no_copy_is_shared_and_the_state_beside_it_is_not(inside: object) -> None:
    model = Guarded(inside).eval()
    initial = initial_copy(model)
    assert isinstance(initial, Guarded)
    assert initial.memory is not model.memory
    assert initial.memory.lock is model.memory.lock
    assert initial.others["one"][0] is inside
    first = model(X)
    assert not torch.equal(model(X), first)
    fresh = FreshEachCall(initial)
    assert torch.equal(fresh(X), first)
    assert torch.equal(fresh(X), first)
    assert initial.memory.calls == [0]


class Stubborn(nn.Module):
    """It refuses to be copied."""

    def __deepcopy__(self, memo: object) -> nn.Module:
        raise TypeError("no")


def test_a_model_that_refuses_has_no_copy() -> None:
    assert initial_copy(Stubborn()) is None


def test_scaled_logits_are_scaled_in_the_copy_too() -> None:
    torch.manual_seed(0)
    model = tiny().eval()
    initial = initial_copy(model)
    target = prepare(make_target(model, "net", "a test"), X, logit_scale=10.0)
    assert initial is not None
    assert target.head is not None
    scaled = with_scaled_head(initial, target.head)
    assert torch.equal(FreshEachCall(scaled)(X), target.model(X))
    assert torch.allclose(model(X) * 10, scaled(X), rtol=1e-4)
