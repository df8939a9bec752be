"""A copy of the state before the first call, and a model that forgets."""

import threading

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


def test_what_cannot_be_copied_has_no_copy() -> None:
    model = Counting()
    model.lock = threading.Lock()
    assert initial_copy(model) is None


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
