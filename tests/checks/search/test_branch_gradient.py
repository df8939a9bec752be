"""Losses of several branches, their gradient, and the branch that decides."""

import pytest
import torch
from support.check_contexts import context_of
from support.switches import CLASSES, SHAPE, Chooses, where

from flatguard.checks.context import Meter
from flatguard.checks.search.branch_gradient import (
    Branched,
    BranchGradient,
    all_wrong,
    choices,
    chosen_and_wrong,
    mean_wrong,
    one_wrong,
)
from flatguard.switches.branches import Frozen, find_switch

IMAGES = torch.rand(12, *SHAPE, generator=torch.Generator().manual_seed(4))
OTHERS = 0.8 * IMAGES.roll(1, dims=0)


def test_the_branch_that_decides() -> None:
    model = Chooses(where).eval()
    found = find_switch(model, IMAGES, OTHERS)
    chosen = choices(found, IMAGES, Meter())
    first = model.scores(IMAGES)[:, 0] > 0
    is_first = torch.allclose(found.branches[0](IMAGES).logits, model.nets[0](IMAGES), atol=1e-5)
    assert torch.equal(chosen == 0, first == is_first)


def test_losses_of_branches() -> None:
    margins = torch.tensor([[1.0, -2.0], [3.0, -0.2]])
    slacks = [torch.tensor([-4.0, 2.0]), None]
    found = Branched(margins, slacks)
    assert all_wrong(found).tolist() == pytest.approx([-3.0, 0.2])
    assert mean_wrong(found).tolist() == pytest.approx([-2.0, 0.35])
    assert one_wrong(1)(found).tolist() == pytest.approx([-3.0, 0.2])
    assert chosen_and_wrong(0)(found).tolist() == pytest.approx([-4.0, 2.0])
    assert chosen_and_wrong(1)(found).tolist() == pytest.approx([-3.0, 0.2])


def test_a_gradient_of_all_branches_and_a_frozen_model() -> None:
    model = Chooses(where).eval()
    labels = model(IMAGES).argmax(dim=1)
    context = context_of(
        model, IMAGES, labels, "foolbox:LinfAdditiveUniformNoiseAttack", eps="1/255"
    )
    rows = next(context.rows(context.survivors))
    found = find_switch(context.model, rows.images, 0.8 * rows.images)
    view = BranchGradient(found, found.alive, all_wrong, context.meter)(rows.images, rows)
    assert view.gradient.shape == rows.images.shape
    assert bool(view.gradient.flatten(1).any(dim=1).all())
    assert not bool(view.fooled.any())
    frozen = Frozen(found.branches[1])
    assert frozen(rows.images).shape == (len(rows), CLASSES)
    assert frozen.rows == len(rows)
