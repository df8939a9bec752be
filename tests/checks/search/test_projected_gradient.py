"""Steps and projections, by properties; the search on a model whose optimum is known."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.check_contexts import linear
from torch import Tensor

from flatguard.checks.search.gradients import Estimated, Gradient, cross_entropy, plain, tempered
from flatguard.checks.search.projected_gradient import Search, search
from flatguard.geometry.ball import direction, project, random_step
from flatguard.geometry.budget import Budget, Norm
from flatguard.geometry.distance import distance

NORMS: list[Norm] = ["Linf", "L2", "L1"]


@given(st.sampled_from(NORMS), st.floats(1e-3, 10.0), st.integers(0, 10_000))
@settings(max_examples=100, deadline=None)
def test_a_projection_is_admissible_and_moves_nothing_that_is(
    norm: Norm, eps: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    clean = torch.rand(5, 3, 4, 4, generator=generator)
    images = clean + torch.randn(5, 3, 4, 4, generator=generator)
    inside = project(images, clean, eps, norm)
    assert bool(((inside >= 0) & (inside <= 1)).all())
    assert bool(Budget(norm, eps).contains(distance(inside, clean, norm)).all())
    assert torch.allclose(project(inside, clean, eps, norm), inside, atol=1e-6)


def test_the_projection_onto_l1_is_the_nearest_point() -> None:
    """Against a bisection of the threshold in float64."""
    clean = torch.full((1, 1, 4, 4), 0.5)
    delta = torch.randn(1, 1, 4, 4, generator=torch.Generator().manual_seed(1)) * 0.2
    found = (project(clean + delta, clean, 1.0, "L1") - clean).double()
    size, low, high = delta.double().abs(), 0.0, 1.0
    for _ in range(60):
        level = (low + high) / 2
        total = float((size - level).clamp_min(0).sum())
        low, high = (level, high) if total > 1.0 else (low, level)
    expected = delta.double().sign() * (size - low).clamp_min(0)
    assert torch.allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("norm", NORMS)
def test_a_direction_has_length_one_and_rises(norm: Norm) -> None:
    gradient = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 1e-30
    gradient[0] = 0
    step = direction(gradient, norm)
    size = distance(step, torch.zeros_like(step), norm)
    assert size[0] == 0
    assert torch.allclose(size[1:].double(), torch.ones(5).double(), atol=1e-4)
    assert bool(((step * gradient).flatten(1).double().sum(dim=1)[1:] > 0).all())


@pytest.mark.parametrize("norm", NORMS)
def test_a_random_step_stays_in_the_ball(norm: Norm) -> None:
    images = torch.rand(8, 3, 4, 4)
    step = random_step(images, 0.3, norm)
    assert bool((distance(step, torch.zeros_like(step), norm) <= 0.3 * (1 + 1e-5)).all())


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("sight", ["gradient", "estimated"])
def test_the_optimum_of_a_linear_model(norm: Norm, sight: str) -> None:
    """Two classes, z = ±w·(x - 1/2): a sample falls exactly where its margin is below eps ‖w‖*.

    The radius lies between the reach of the easier and of the harder half of the samples.
    """
    context, reach = linear(norm)
    found: list[Tensor] = []
    for rows in context.rows(context.survivors):
        if sight == "gradient":
            seen = Gradient(plain(context.model), cross_entropy, context.meter)
        else:
            seen = Estimated(context.model, context.meter, pairs=64, spread=0.01)  # type: ignore[assignment]
        result = search(context, seen, rows, Search(30, random_start=False))
        assert bool((distance(result.images, rows.images, norm) <= context.eps * (1 + 1e-5)).all())
        found.append(result.fooled)
    fell = torch.cat(found)
    sure = reach < 0.8 * context.eps
    if norm != "L1" or sight == "gradient":  # sparse steps along estimates are slow
        assert bool(fell[sure].all())
    assert not bool(fell[reach > 1.001 * context.eps].any())


def test_what_fell_leaves_the_search() -> None:
    context, reach = linear("Linf")
    rows = next(context.rows(context.survivors))
    before = context.meter.forwards
    sight = Gradient(plain(context.model), tempered, context.meter)
    result = search(context, sight, rows, Search(10))
    spent = context.meter.forwards - before
    assert spent < 11 * len(rows) + len(rows)
    assert bool(context.fools(result.images, rows)[result.fooled].all())
    assert len(reach) == len(rows)
