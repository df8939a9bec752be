"""Directions from gradients and estimates, against a model whose gradient is known."""

import random

import numpy as np
import pytest
import torch
from support.check_contexts import linear

from flatguard.checks.search.gradients import (
    Estimated,
    Gradient,
    cross_entropy,
    frozen,
    margin_loss,
    margin_of,
    tempered,
)
from flatguard.twins.outputs import Outputs, plain


@pytest.mark.parametrize("loss", [cross_entropy, margin_loss, tempered])
def test_every_loss_rises_against_the_margin(loss) -> None:  # type: ignore[no-untyped-def]
    context, _ = linear("L2")
    rows = next(context.rows(context.survivors))
    before = context.meter.forwards
    view = Gradient(plain(context.model), loss, context.meter)(rows.images, rows)
    assert context.meter.forwards - before == len(rows)
    weight = context.model.head.weight[0].detach().view(3, 4, 4)  # type: ignore[union-attr, index]
    uphill = torch.where(rows.labels == 0, -1.0, 1.0)[:, None, None, None] * weight
    cosine = torch.cosine_similarity(view.gradient.flatten(1), uphill.flatten(1))
    assert bool((cosine > 0.9999).all())
    assert not bool(view.fooled.any())
    assert torch.allclose(view.margin, margin_of(context.logits(rows.images), rows))


def test_an_estimate_needs_no_gradient_and_points_the_same_way() -> None:
    context, _ = linear("L2")
    rows = next(context.rows(context.survivors))
    for parameter in context.model.parameters():
        parameter.requires_grad_(False)
    source = Estimated(context.model, context.meter, pairs=400, spread=0.01)
    before = context.meter.forwards
    found = source(rows.images, rows).gradient
    assert context.meter.forwards - before == (2 * 400 + 1) * len(rows)
    exact = Gradient(plain(context.model), margin_loss, context.meter)(rows.images, rows).gradient
    assert bool((torch.cosine_similarity(found.flatten(1), exact.flatten(1)) > 0.8).all())


def test_the_temperature_gives_the_clean_logits_a_gap_of_two() -> None:
    context, _ = linear("L2")
    rows = next(context.rows(context.survivors))
    assert torch.allclose(margin_of(context.logits(rows.images), rows), torch.tensor(2.0).double())


def test_noise_is_averaged_and_the_decision_is_that_of_the_image_itself() -> None:
    context, _ = linear("L2")
    rows = next(context.rows(context.survivors))
    source = Gradient(plain(context.model), margin_loss, context.meter, draws=3, noise=5.0)
    before = context.meter.forwards
    view = source(rows.images, rows)
    assert context.meter.forwards - before == 4 * len(rows)
    assert not bool(view.fooled.any())


def test_a_loss_without_a_path_to_the_image_has_gradient_zero() -> None:
    context, _ = linear("L2")
    rows = next(context.rows(context.survivors))

    def cut(images: torch.Tensor) -> Outputs:
        logits = context.model(images.detach())
        return Outputs(logits, logits)

    with torch.no_grad():
        view = Gradient(cut, cross_entropy, context.meter)(rows.images, rows)
    assert not bool(view.gradient.any())


def test_nan_is_no_mistake() -> None:
    context, _ = linear("L2")
    rows = next(context.rows(context.survivors))
    logits = torch.full((len(rows), 2), float("nan"))
    assert bool(margin_of(logits, rows).isposinf().all())


def test_frozen_randomness_is_the_same_at_every_call_and_leaves_the_generators() -> None:
    class Drawing(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            noise = torch.randn(len(x), 2) + random.random() + float(np.random.rand())
            return x.flatten(1)[:, :2] + noise

    images = torch.rand(3, 1, 2, 2)
    twin, other = frozen(Drawing(), 5), frozen(Drawing(), 6)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    one, two = twin(images).decides, twin(images).decides
    assert torch.equal(one, two)
    assert not torch.equal(one, other(images).decides)
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == random.getstate()
    assert (before[2] == np.random.get_state()[1]).all()
