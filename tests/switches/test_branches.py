"""Which branches a model's output is chosen from."""

from collections.abc import Callable

import pytest
import torch
from support.switches import (
    NONE,
    SHAPE,
    THREE,
    TWO,
    Chooses,
    agreement,
    by_chance,
    noisy,
    small_net,
)
from torch import Tensor, nn

from flatguard.environment.randomness import seeded
from flatguard.switches.branches import find_switch

IMAGES = torch.rand(12, *SHAPE, generator=torch.Generator().manual_seed(4))
OTHERS = 0.8 * IMAGES.roll(1, dims=0)


def names(functions: tuple[object, ...]) -> list[str]:
    return [str(getattr(each, "__name__", each)) for each in functions]


def is_one_of(logits: Tensor, nets: nn.ModuleList) -> bool:
    return any(torch.allclose(logits, net(IMAGES), atol=1e-5) for net in nets)


@pytest.mark.parametrize("answer", TWO, ids=names(TWO))
def test_two_branches(answer: Callable[[Chooses, Tensor], Tensor]) -> None:
    model = Chooses(answer).eval()
    found = find_switch(model, IMAGES, OTHERS)
    assert len(found.branches) == len(found.alive) == 2
    assert all(is_one_of(branch(IMAGES).logits, model.nets) for branch in found.branches)


@pytest.mark.parametrize("answer", THREE, ids=names(THREE))
def test_three_branches(answer: Callable[[Chooses, Tensor], Tensor]) -> None:
    model = Chooses(answer).eval()
    found = find_switch(model, IMAGES, OTHERS)
    assert len(found.branches) == 3
    assert all(is_one_of(branch(IMAGES).logits, model.nets) for branch in found.branches)
    one = IMAGES[:1]  # gates know images by their number, so one image alone is a case of its own
    assert torch.allclose(found.branches[2](one).logits, found.branches[2](IMAGES).logits[:1])


@pytest.mark.parametrize("answer", NONE, ids=names(NONE))
def test_what_chooses_nothing_has_no_branches(answer: Callable[[Chooses, Tensor], Tensor]) -> None:
    found = find_switch(Chooses(answer).eval(), IMAGES, OTHERS)
    assert found.branches == []


def test_where_classes_are_compared_the_branches_are_the_two_that_may_answer() -> None:
    model = Chooses(agreement).eval()
    found = find_switch(model, IMAGES, OTHERS)
    assert len(found.branches) == 2
    assert found.gates in (["__eq__"], ["eq"])
    agree = model.nets[0](IMAGES).argmax(dim=1) == model.nets[1](IMAGES).argmax(dim=1)
    slacks = [branch(IMAGES.clone().requires_grad_(True)).slack for branch in found.branches]
    sides = [slack > 0 for slack in slacks if slack is not None]
    assert len(sides) == 2
    assert torch.equal(sides[0], ~sides[1])
    assert any(torch.equal(side, agree) for side in sides)


@pytest.mark.parametrize("answer", [noisy, by_chance])
def test_chance_is_no_switch(answer: Callable[[Chooses, Tensor], Tensor]) -> None:
    model = Chooses(answer).eval()
    assert find_switch(model, IMAGES, OTHERS).branches == []
    assert find_switch(model, IMAGES, OTHERS, lambda: seeded(1, torch.device("cpu"))).branches == []


def test_a_gate_without_gradient_gets_one_in_its_branch() -> None:
    class Locked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = small_net(0)

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = self.net(x)
            with torch.no_grad():
                suspicious = x.flatten(1).std(dim=1) > 0.28
            return logits.masked_fill(suspicious[:, None], 0.0)

    found = find_switch(Locked().eval(), IMAGES, OTHERS)
    assert len(found.branches) == 2
    assert found.alive == [0]
    x = IMAGES.clone().requires_grad_(True)
    slack = found.branches[1](x).slack
    assert slack is not None
    inside = IMAGES.flatten(1).std(dim=1) > 0.28
    assert torch.equal(slack > 0, inside)
    assert bool(torch.autograd.grad(slack.sum(), x)[0].any())
