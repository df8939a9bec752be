"""The roots against their polynomials, and the bound against every rise that can be found."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flatguard.geometry.bounds import (
    THIRD,
    HeadBound,
    PrintedBound,
    largest_step,
    logit_gradient_norm,
)
from flatguard.geometry.decision import cross_entropy

F64 = torch.float64
seeds = st.integers(0, 2**31 - 1)
coefficients = st.one_of(st.just(0.0), st.floats(-80, 30).map(math.exp))


@given(coefficients, coefficients, coefficients, st.floats(1e-6, 1e3))
def test_the_step_is_the_root(c1: float, c2: float, c3: float, epsilon: float) -> None:
    t = float(largest_step(*(torch.tensor([c], dtype=F64) for c in (c1, c2, c3)), epsilon))
    if c1 == c2 == c3 == 0:
        assert t == math.inf
    else:
        assert c1 * t + c2 * t**2 + c3 * t**3 == pytest.approx(epsilon, rel=1e-12)


def test_what_was_not_measured_stays_so() -> None:
    zero, nan = torch.zeros(1), torch.tensor([math.nan])
    assert largest_step(nan, zero, zero, 1.0).isnan()
    with pytest.raises(ValueError, match="at least 0"):
        largest_step(torch.tensor([-1.0]), zero, zero, 1.0)


def printed(kappa: float, lipschitz: float = 5.0, radius: float = 7.0) -> PrintedBound:
    one = torch.ones(1, dtype=F64)
    return PrintedBound(one * kappa, one * lipschitz, one * radius, classes=10, features=64)


@given(st.floats(-200, 5).map(math.exp), st.floats(0.1, 50), st.floats(0.1, 50))
def test_the_printed_radius_solves_the_printed_bound(
    kappa: float, lipschitz: float, radius: float
) -> None:
    bound = printed(kappa, lipschitz, radius)
    assert float(bound.rise(bound.delta(0.01))) == pytest.approx(0.01, rel=1e-10)
    # ... and Proposition 8 as it is printed, in δ
    delta, k_m = 0.3, 640
    as_printed = (
        delta**2 / (2 * radius**2) * lipschitz**2 * kappa
        + delta**3 / (24 * radius**3) * k_m * lipschitz**6
    )
    assert float(bound.rise(delta)) == pytest.approx(as_printed, rel=1e-12)


@given(st.floats(0.1, 50), st.floats(0.1, 50), st.floats(1e-4, 10))
def test_the_limit_of_a_flat_model(lipschitz: float, radius: float, epsilon: float) -> None:
    limit = float(printed(0.0, lipschitz, radius).flat_limit(epsilon))
    stated = radius / lipschitz * (24 * epsilon / (640 * lipschitz**3)) ** (1 / 3)
    assert limit == pytest.approx(stated, rel=1e-12)
    flat = [float(printed(kappa, lipschitz, radius).delta(epsilon)) for kappa in (1e-3, 1e-12, 0.0)]
    assert flat[0] <= flat[1] * (1 + 1e-12)
    assert flat[1] <= flat[2] * (1 + 1e-12)
    assert flat[2] == pytest.approx(limit, rel=1e-9)


@settings(max_examples=150, deadline=None)
@given(
    seeds,
    st.integers(2, 12),
    st.integers(1, 8),
    st.floats(-6, 6),
    st.floats(-6, 4),
    st.floats(-3, 3),
)
def test_the_bound_is_never_violated(
    seed: int, k: int, m: int, confidence: float, log_distance: float, log_norm: float
) -> None:
    """Any head, label, clean point and direction; the gradient's own direction among them."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, dtype=F64, generator=generator)

    weight, phi = normal(k, m) * math.exp(log_norm), normal(20, m) * math.exp(confidence)
    bias, labels = normal(k), torch.randint(0, k, (20,), generator=generator)
    clean = phi @ weight.T + bias
    bound = HeadBound.of(clean, labels, weight)
    p = clean.softmax(1) - torch.nn.functional.one_hot(labels, k)
    # random, steepest, and along the head's largest singular vector: where a bound is tight
    top = torch.linalg.svd(weight).Vh[0].expand(20, m)
    for direction in (normal(20, m), p @ weight, top, -top):
        size = direction.norm(dim=1, keepdim=True)
        moved = direction / size.clamp_min(1e-300) * math.exp(log_distance)
        distance = moved.norm(dim=1)
        rise = cross_entropy((phi + moved) @ weight.T + bias, labels) - cross_entropy(clean, labels)
        slack = 1e-9 * (1.0 + cross_entropy(clean, labels) + rise.abs())
        assert bool((rise.abs() <= bound.rise(distance) + slack).all())


def test_the_third_term_is_tight() -> None:
    """No smaller constant would do: two classes at p = 1/2 - 1/√12, along the difference."""
    p = 0.5 - 1 / math.sqrt(12)
    logits = torch.tensor([math.log(p / (1 - p)), 0.0], dtype=F64, requires_grad=True)
    direction = torch.tensor([1.0, -1.0], dtype=F64) / math.sqrt(2)

    def along(t: torch.Tensor) -> torch.Tensor:
        return -(logits.detach() + t * direction).log_softmax(0)[0]

    t = torch.zeros((), dtype=F64, requires_grad=True)
    derivative = along(t)
    for _ in range(3):
        (derivative,) = torch.autograd.grad(derivative, t, create_graph=True)
    assert abs(float(derivative)) / 6 == pytest.approx(THIRD, rel=1e-9)


def test_the_allowed_distance_is_where_the_bound_is_epsilon() -> None:
    torch.manual_seed(0)
    weight, phi = torch.randn(10, 6, dtype=F64), torch.randn(30, 6, dtype=F64)
    bound = HeadBound.of(phi @ weight.T, torch.randint(0, 10, (30,)), weight)
    assert bound.rise(bound.distance(0.05)).numpy() == pytest.approx(0.05, rel=1e-10)


@given(seeds, st.floats(0, 300))
def test_the_gradient_of_a_confident_model_is_not_rounded_to_zero(seed: int, gap: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.rand(1, 5, dtype=F64, generator=generator)
    logits[0, 2] += gap
    found = float(logit_gradient_norm(logits, torch.tensor([2])))
    d = logits[0] - logits[0, 2]
    s = sum(math.exp(float(x)) for i, x in enumerate(d) if i != 2)
    q = sum(math.exp(2 * float(x)) for i, x in enumerate(d) if i != 2)
    assert found == pytest.approx(math.sqrt((s / (1 + s)) ** 2 + q / (1 + s) ** 2), rel=1e-9)


def test_the_printed_bound_is_not_invariant_but_the_model_is() -> None:
    """φ → cφ, W → W/c changes no output and no κ, and yet the printed radius grows without end."""
    deltas = [float(printed(1e-20, 5.0 * c, 7.0 * c).delta(0.01)) for c in (1.0, 0.1, 0.01)]
    assert deltas[1] == pytest.approx(10 * deltas[0], rel=1e-3)
    assert deltas[2] == pytest.approx(100 * deltas[0], rel=1e-3)
