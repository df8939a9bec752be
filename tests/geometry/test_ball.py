"""Steepest directions and projections, against their definitions in float64."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from flatguard.geometry.ball import SEARCHED, direction, project, random_point, random_step
from flatguard.geometry.budget import Norm
from flatguard.geometry.distance import distance

seeds = st.integers(0, 10**6)


def drawn(seed: int, n: int = 4) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 3, 5, 5, generator=generator, dtype=torch.float64)


@given(seeds)
def test_the_direction_has_length_1_and_is_steepest(seed: int) -> None:
    gradient, others = drawn(seed), drawn(seed + 1)
    for norm in ("Linf", "L2"):
        step = direction(gradient, norm)
        length = distance(step, torch.zeros_like(step), norm)
        assert torch.allclose(length, torch.ones_like(length))
        other = others / distance(others, torch.zeros_like(others), norm).view(-1, 1, 1, 1)
        best, reached = (step * gradient).sum((1, 2, 3)), (other * gradient).sum((1, 2, 3))
        assert (best >= reached - 1e-12).all()


def test_a_step_in_l1_changes_the_steepest_values() -> None:
    gradient = drawn(0)
    step = direction(gradient, "L1").flatten(1)
    assert torch.allclose(step.abs().sum(1), torch.ones(4, dtype=torch.float64))
    changed = (step != 0).sum(1)
    assert changed.tolist() == [2] * 4  # 2% of 75 values
    steepest = gradient.flatten(1).abs().topk(2, dim=1).indices
    assert (step.gather(1, steepest) != 0).all()


@pytest.mark.parametrize("norm", SEARCHED)
def test_no_gradient_is_no_step(norm: Norm) -> None:
    zero = torch.zeros(2, 3, 5, 5)
    assert not direction(zero, norm).any()
    assert direction(torch.full_like(zero, 1e-30), norm).isfinite().all()


@given(seeds, st.floats(0.05, 3.0))
def test_the_projection_is_the_nearest_point_of_the_ball(seed: int, eps: float) -> None:
    clean = torch.full((4, 3, 5, 5), 0.5, dtype=torch.float64)
    moved = clean + 0.01 * drawn(seed)  # inside the box, so that only the ball counts
    delta = (moved - clean).flatten(1)
    for norm in SEARCHED:
        scale = eps * distance(moved, clean, norm).min().item()
        found = (project(moved, clean, scale, norm) - clean).flatten(1)
        assert (distance(found, torch.zeros_like(found), norm) <= scale * (1 + 1e-9)).all()
        # The nearest point p satisfies <delta - p, q - p> <= 0 for each q in the ball.
        q = random_step(clean, scale, norm).flatten(1)
        assert (((delta - found) * (q - found)).sum(1) <= 1e-12).all()


def test_the_projection_ends_in_the_box() -> None:
    clean = torch.rand(4, 3, 5, 5, dtype=torch.float64)
    for norm in SEARCHED:
        found = project(clean + drawn(3), clean, 0.7, norm)
        assert ((found >= 0) & (found <= 1)).all()
        assert (distance(found, clean, norm) <= 0.7 * (1 + 1e-9)).all()


@given(seeds, st.floats(0.01, 3.0))
def test_a_random_point_is_in_the_ball_and_in_the_box(seed: int, eps: float) -> None:
    torch.manual_seed(seed)
    clean = torch.rand(4, 3, 5, 5, dtype=torch.float64)
    for norm in SEARCHED:
        found = random_point(clean, eps, norm)
        assert ((found >= 0) & (found <= 1)).all()
        assert (distance(found, clean, norm) <= eps * (1 + 1e-9)).all()
        assert not torch.equal(found, clean)
