"""Where the output is chosen between branches, the cascade shows all of them, and says so."""

from collections.abc import Callable

import pytest
import torch
from support.switches import SHAPE, Chooses, indexed, larger, mean, median, where
from torch import Tensor

import flatguard
from flatguard.attacks import build_attack
from flatguard.attacks.branch_twin import MeanOfBranches, switch_of
from flatguard.attacks.monitor import NoMonitor
from flatguard.attacks.survivors import Images, Survivors
from flatguard.geometry.budget import Budget
from flatguard.geometry.distance import within

BUDGET = Budget("Linf", 0.1)
IMAGES = torch.rand(24, *SHAPE, generator=torch.Generator().manual_seed(4))

Answer = Callable[[Chooses, Tensor], Tensor]


def chooses(answer: Answer) -> tuple[Chooses, Tensor]:
    model = Chooses(answer).eval()
    with torch.no_grad():
        return model, model(IMAGES).argmax(dim=1)


def on(answer: Answer) -> Survivors:
    model, labels = chooses(answer)
    return Survivors(model, Images(IMAGES, labels), BUDGET, NoMonitor())


@pytest.mark.parametrize(("answer", "branches"), [(where, 2), (indexed, 3)])
def test_its_branches_are_found(answer: Answer, branches: int) -> None:
    survivors = on(answer)
    before = survivors.passes
    switch = switch_of(survivors, IMAGES, survivors.surviving, BUDGET)
    assert len(switch.branches) == branches
    assert survivors.passes == before + 8 * (2 * switch.runs + 2)


@pytest.mark.parametrize("answer", [mean, larger, median])
def test_what_does_not_jump_is_no_switch(answer: Answer) -> None:
    survivors = on(answer)
    assert not switch_of(survivors, IMAGES, survivors.surviving, BUDGET).branches


def test_the_model_decides_and_every_branch_has_a_part_in_the_gradient() -> None:
    survivors = on(where)
    model = survivors.model
    twin = MeanOfBranches(survivors, switch_of(survivors, IMAGES, survivors.surviving, BUDGET))
    x = IMAGES.clone().requires_grad_(True)
    outputs = twin(x)
    with torch.no_grad():
        assert torch.equal(outputs.decides, model(IMAGES))
    (slope,) = torch.autograd.grad(outputs.loss[:, 0].sum(), x)
    assert isinstance(model, Chooses)
    y = IMAGES.clone().requires_grad_(True)
    nets = [net(y) for net in model.nets[:2]]
    exact = torch.stack([each / each.detach().std(dim=1, keepdim=True) for each in nets]).mean(0)
    (expected,) = torch.autograd.grad(exact[:, 0].sum(), y)
    assert torch.allclose(slope, expected, atol=1e-5)


def test_a_branch_that_cannot_run_is_left_out() -> None:
    def brittle(m: Chooses, x: Tensor) -> Tensor:
        first = m.scores(x)[:, :1] > 0
        if len(x) == len(IMAGES) and bool(first.all()):
            raise ValueError("never seen so many of the first kind")
        return torch.where(first, m.nets[0](x), m.nets[1](x))

    survivors = on(brittle)
    switch = switch_of(survivors, IMAGES, survivors.surviving, BUDGET)
    assert len(switch.branches) == 2
    loss = MeanOfBranches(survivors, switch)(IMAGES).loss
    assert isinstance(survivors.model, Chooses)
    alone = survivors.model.nets[1](IMAGES)
    assert torch.allclose(loss, alone / alone.std(dim=1, keepdim=True), atol=1e-5)


def test_the_cascade_says_so() -> None:
    model, labels = chooses(indexed)
    found = build_attack("cascade", BUDGET, 4, {}).perturb(model, IMAGES, labels, 0)
    assert within(found.images, IMAGES, BUDGET).all()
    warning = found.warnings[-1]
    assert "chosen between 3 branches (argmax)" in warning
    assert "by gradients of all branches" in warning


def test_what_a_branch_answers_alone_is_counted_and_not_recorded() -> None:
    model, labels = chooses(where)
    plain = build_attack("cascade", BUDGET, 4, {}).perturb(model, IMAGES, labels, 0).images
    rows = [0]
    model.register_forward_pre_hook(lambda _, given: rows.__setitem__(0, rows[0] + len(given[0])))
    with flatguard.Recorder(model, IMAGES, labels, budget=BUDGET) as recorder:
        rows[0] = 0
        attack = build_attack("cascade", BUDGET, 4, {})
        recorded = attack.perturb(recorder.model, IMAGES, labels, 0, recorder).images
    assert torch.equal(plain, recorded)
    assert recorder.forwards == rows[0] > len(recorder.trajectory())
    assert recorder.mistakes is not None
    kept = recorder.mistakes.of(torch.ones(len(IMAGES), dtype=torch.bool))
    assert kept is not None
    with torch.no_grad():
        assert bool((model(kept.images).argmax(dim=1) != labels[kept.sample]).all())
