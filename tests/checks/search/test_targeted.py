"""Searches towards classes: which come first, who gets more, and what they cost."""

import pytest
import torch
from support.check_contexts import context_of, linear, trained
from torch import Tensor, nn

from flatguard.checks.context import Rows
from flatguard.checks.search.targeted import Plan, search_towards_classes, towards
from flatguard.geometry.distance import within
from flatguard.twins.outputs import Outputs, plain

WEAK = "foolbox:LinfAdditiveUniformNoiseAttack"


def rows_of(n: int, k: int) -> Rows:
    images = torch.zeros(n, 1)
    return Rows(
        torch.arange(n) * 3, images, torch.arange(n) % k, torch.ones(n, dtype=torch.float64), images
    )


def test_the_loss_names_a_class_for_each_sample_also_of_some_of_them() -> None:
    rows, logits = rows_of(4, 3), torch.arange(12.0).view(4, 3) ** 2
    classes = torch.tensor([2, 0, 1, 2])
    expected = logits[range(4), classes] - logits[range(4), rows.labels]
    loss = towards(classes, rows)
    assert torch.equal(loss(Outputs(logits, logits), rows), expected)
    some = torch.tensor([1, 3])
    assert torch.equal(loss(Outputs(logits[some], logits[some]), rows[some]), expected[some])


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_towards_the_only_other_class_it_is_exact_on_a_linear_model(norm: str) -> None:
    context, reach = linear(norm)
    rows = next(context.rows(context.survivors))
    plan = Plan(steps=20, wide=2, nearest=0.0, more=0)
    with context.seeded("test"):
        images, fooled = search_towards_classes(context, plain(context.model), rows, plan=plan)
    assert bool(within(images, rows.images, context.budget).all())
    assert fooled.tolist() == [bool(r < context.eps) for r in reach]


class Behind(nn.Module):
    """Class 1 is next and cannot be reached; class 2 is behind it and can; class 3 is far."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        first, second = x[:, 0, 0, 0], x[:, 0, 0, 1]
        far = torch.full_like(first, -9.0)
        others = [-0.02 - (first - 0.5).abs(), second - 0.55, far + first]
        return self.scale * torch.stack([0 * first, *others], dim=1)


def test_classes_are_taken_in_the_order_of_their_gaps() -> None:
    labels = torch.zeros(6, dtype=torch.int64)
    context = context_of(Behind(), torch.full((6, 1, 1, 2), 0.5), labels, WEAK, eps=0.02)
    rows = next(context.rows(context.survivors))
    seen: list[int] = []

    def twin(images: Tensor) -> Outputs:
        logits = context.model(images)
        if logits.requires_grad:  # the loss's slope is 1 in the class that it names
            logits.register_hook(lambda slope: seen.extend(slope.argmax(dim=1).tolist()))
        return Outputs(logits, logits)

    with context.seeded("test"):
        search_towards_classes(context, twin, rows, plan=Plan(steps=1, wide=3, nearest=0, more=0))
    assert list(dict.fromkeys(seen)) == [1, 2, 3]


def test_the_queries_that_are_left_go_to_the_nearest() -> None:
    images = torch.rand(10, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(10) % 4
    context = context_of(trained(images, labels), images, labels, WEAK, eps="1/2550")
    rows = next(context.rows(context.survivors))
    asked: list[int] = []

    def twin(x: Tensor) -> Outputs:
        asked.append(len(x))
        logits = context.model(x)
        return Outputs(logits, logits)

    plan = Plan(steps=4, wide=1, nearest=0.2, more=2)
    before = context.meter.forwards
    with context.seeded("test"):
        search_towards_classes(context, twin, rows, plan=plan)
    n, few = len(rows), round(0.2 * len(rows))
    assert asked == [n] * 5 + [few] * 10
    assert context.meter.forwards - before <= n * plan.cost + 1e-9


def test_nothing_is_left_where_all_are_fooled() -> None:
    images = torch.rand(8, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(8) % 4
    context = context_of(trained(images, labels), images, labels, WEAK, eps=0.001)
    rows = next(context.rows(context.survivors))
    wide = Rows(rows.sample, rows.images, (rows.labels + 1) % 4, rows.temperature, rows.adversarial)
    plan = Plan(steps=5, wide=9, nearest=0.5, more=3)
    before = context.meter.forwards
    with context.seeded("test"):
        _, fooled = search_towards_classes(context, plain(context.model), wide, plan=plan)
    assert bool(fooled.all())
    assert context.meter.forwards - before <= 5 * len(rows)
