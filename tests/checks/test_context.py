"""What checks gather with: rows of blocks, counted passes, and verified examples."""

import numpy as np
import pytest
import torch
from support.check_contexts import context_of, linear, trained
from support.defences import Before, noise

from flatguard.checks.context import CONFIRM_DRAWS, VERIFY_DRAWS, evenly
from flatguard.errors import BudgetSpent
from flatguard.execution.compute_budget import ComputeBudget
from flatguard.request import Limits


def test_rows_come_block_by_block_in_order_and_keep_their_samples() -> None:
    images = torch.rand(10, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(10) % 4
    weak = "foolbox:LinfAdditiveUniformNoiseAttack"
    context = context_of(trained(images, labels), images, labels, weak, eps=0.01, batch_size=4)
    wanted = np.array([9, 1, 0, 5, 6])
    found = list(context.rows(wanted))
    assert [rows.sample.tolist() for rows in found] == [[0, 1], [5, 6], [9]]
    for rows in found:
        assert torch.equal(rows.images, images[rows.sample])
        assert torch.equal(rows.labels, labels[rows.sample])
        assert bool((rows.adversarial - rows.images).abs().max() <= 0.01 + 1e-6)
    context.batch_limit = 1
    assert [len(rows) for rows in context.rows(wanted)] == [1] * 5


def test_an_example_fools_within_the_ball_and_the_box_only() -> None:
    context, reach = linear("Linf")
    rows = next(context.rows(context.survivors))
    weight = context.model.head.weight[0].detach().view(3, 4, 4)  # type: ignore[union-attr, index]
    sign = torch.where(rows.labels == 0, -1.0, 1.0)[:, None, None, None] * weight.sign()
    before = context.meter.forwards
    reached = context.fools(rows.images + context.eps * sign, rows)
    assert context.meter.forwards - before == len(rows)
    assert torch.equal(reached, reach < context.eps)
    assert not bool(context.fools(rows.images + 1.1 * context.eps * sign, rows).any())
    assert bool(context.fools(rows.images + 0.29 * sign, rows, eps=0.3)[reach < 0.29].all())
    assert not bool(context.fools(rows.images + 0.9 * sign, rows, eps=1.0).any())


def test_a_randomised_target_is_queried_often() -> None:
    images = torch.rand(8, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(8) % 4
    model = Before(trained(images, labels), noise(0.3)).eval()
    weak = "foolbox:LinfAdditiveUniformNoiseAttack"
    context = context_of(model, images, labels, weak, eps=0.01)
    rows = next(context.rows(context.samples["sample"].to_numpy()))
    context.randomised = True
    share = context.share_wrong(rows.images, rows.labels)
    assert context.meter.forwards == VERIFY_DRAWS * len(rows)
    assert bool(((share * VERIFY_DRAWS).round() - share * VERIFY_DRAWS).abs().max() < 1e-9)
    none = torch.zeros(len(rows), dtype=torch.bool)
    assert torch.equal(context.confirmed(rows.images, rows, none), none)
    before = context.meter.forwards
    context.confirmed(rows.images, rows, ~none)
    assert context.meter.forwards - before == CONFIRM_DRAWS * len(rows)


def test_passes_are_paid_from_the_budget() -> None:
    context, _ = linear("Linf")
    context.meter.compute_budget = ComputeBudget(Limits(max_forwards=10))
    context.logits(torch.rand(10, 3, 4, 4))
    with pytest.raises(BudgetSpent):
        context.logits(torch.rand(1, 3, 4, 4))


def test_parts_have_seeds_of_their_own_and_generators_are_restored() -> None:
    context, _ = linear("Linf")
    before = torch.get_rng_state()
    with context.seeded("a"):
        one = torch.rand(3)
    with context.seeded("b"):
        other = torch.rand(3)
    with context.seeded("a"):
        assert torch.equal(torch.rand(3), one)
    assert not torch.equal(one, other)
    assert torch.equal(before, torch.get_rng_state())


def test_samples_are_spread_evenly() -> None:
    numbers = np.arange(100)
    assert evenly(numbers, 5).tolist() == [0, 25, 50, 74, 99]
    assert evenly(numbers[:3], 5).tolist() == [0, 1, 2]
