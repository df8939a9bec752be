"""Relative sharpness against dense float64 Hessians, and against mpmath beyond them."""

import math

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flatguard.geometry.sharpness import (
    feature_norm,
    log_relative_sharpness,
    log_sum_p_one_minus_p,
    log_trace,
    log_weight_norm_squared,
)

F64 = torch.float64
seeds = st.integers(0, 2**31 - 1)


def random_head(seed: int, k: int, d: int, gap: float) -> tuple[torch.Tensor, torch.Tensor]:
    """W and φ whose logits span exactly `gap`."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(k, d, dtype=F64, generator=generator)
    phi = torch.randn(d, dtype=F64, generator=generator)
    logits = weight @ phi
    return weight * (gap / (logits.max() - logits.min())), phi


def dense_kappa(weight: torch.Tensor, phi: torch.Tensor, label: int) -> float:
    """‖W‖² times the trace of the full autograd Hessian of cross-entropy in W."""

    def loss(flat: torch.Tensor) -> torch.Tensor:
        logits = flat.view_as(weight) @ phi
        return torch.nn.functional.cross_entropy(logits[None], torch.tensor([label]))

    hessian = torch.autograd.functional.hessian(loss, weight.flatten(), vectorize=True)
    return float(weight.square().sum() * hessian.diagonal().sum())


@settings(max_examples=40, deadline=None)
@given(seed=seeds, k=st.integers(2, 40), d=st.integers(1, 12), gap=st.floats(1e-3, 20.0))
def test_agrees_with_the_dense_hessian(seed: int, k: int, d: int, gap: float) -> None:
    weight, phi = random_head(seed, k, d, gap)
    ours = log_relative_sharpness((weight @ phi)[None], phi[None], weight).exp().item()
    assert ours == pytest.approx(dense_kappa(weight, phi, seed % k), rel=1e-5)


@settings(max_examples=12, deadline=None)
@given(seed=seeds, k=st.integers(100, 1000), gap=st.floats(1e-3, 20.0))
def test_agrees_with_the_dense_hessian_at_many_classes(seed: int, k: int, gap: float) -> None:
    weight, phi = random_head(seed, k, 1, gap)
    ours = log_relative_sharpness((weight @ phi)[None], phi[None], weight).exp().item()
    assert ours == pytest.approx(dense_kappa(weight, phi, seed % k), rel=1e-5)


def exact_log_sum(logits: list[float]) -> float:
    with mpmath.workdps(2000):  # a gap of 1e3 is a probability of 1e-434
        exps = [mpmath.exp(mpmath.mpf(z) - mpmath.mpf(max(logits))) for z in logits]
        total = mpmath.fsum(exps)
        return float(mpmath.log(mpmath.fsum(e / total * (1 - e / total) for e in exps)))


@settings(max_examples=60, deadline=None)
@given(
    logits=st.lists(st.floats(-1.0, 1.0), min_size=2, max_size=30),
    scale=st.sampled_from([1.0, 10.0, 40.0, 100.0, 1000.0]),
)
def test_agrees_with_exact_arithmetic_at_any_gap(logits: list[float], scale: float) -> None:
    scaled = [z * scale for z in logits]
    ours = log_sum_p_one_minus_p(torch.tensor([scaled], dtype=F64)).item()
    exact = exact_log_sum(scaled)
    assert abs(ours - exact) <= 1e-6 * max(1.0, abs(exact))


@settings(max_examples=30, deadline=None)
@given(seed=seeds, k=st.integers(2, 200))
def test_float32_keeps_the_ranking_of_float64(seed: int, k: int) -> None:
    logits = torch.randn(64, k, generator=torch.Generator().manual_seed(seed)) * 1000
    narrow = log_sum_p_one_minus_p(logits)
    wide = log_sum_p_one_minus_p(logits.double())
    assert torch.isfinite(narrow).all()
    assert torch.equal(narrow.argsort(), wide.argsort())


def test_a_float32_head_keeps_the_ranking_of_a_float64_head() -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(10, 64, generator=generator) * 1000 / 8
    phi = torch.rand(500, 64, generator=generator)
    narrow = log_relative_sharpness(phi @ weight.T, phi, weight)
    wide = log_relative_sharpness(phi.double() @ weight.T.double(), phi.double(), weight.double())
    by_rank = np.corrcoef(narrow.argsort().argsort(), wide.argsort().argsort())[0, 1]
    assert by_rank > 0.999999
    assert (1 - torch.softmax(phi @ weight.T, 1).square().sum(1)).eq(0).float().mean() > 0.5


@given(seed=seeds, shift=st.floats(-50, 50))
def test_a_shift_or_a_permutation_of_the_classes_changes_nothing(seed: int, shift: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(5, 9, dtype=F64, generator=generator) * 8
    order = torch.randperm(9, generator=generator)
    expected = log_sum_p_one_minus_p(logits)
    assert torch.allclose(log_sum_p_one_minus_p(logits + shift), expected, atol=1e-9)
    assert torch.allclose(log_sum_p_one_minus_p(logits[:, order]), expected, atol=1e-12)


@given(seed=seeds, factor=st.floats(1e-3, 1e3))
def test_invariant_under_reparameterisation(seed: int, factor: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(4, 6, dtype=F64, generator=generator)
    phi = torch.randn(3, 6, dtype=F64, generator=generator)
    logits = phi @ weight.T
    expected = log_relative_sharpness(logits, phi, weight)
    rescaled = log_relative_sharpness(logits, phi * factor, weight / factor)
    assert torch.allclose(rescaled, expected, atol=1e-9)


def test_equal_logits_reach_the_maximum() -> None:
    value = log_sum_p_one_minus_p(torch.zeros(1, 10)).item()
    assert value == pytest.approx(math.log(0.9), abs=1e-12)


def test_the_pieces_add_up() -> None:
    weight, phi = random_head(5, 7, 3, 6.0)
    logits = (weight @ phi)[None]
    assert feature_norm(phi[None]).item() == pytest.approx(phi.norm().item())
    assert log_weight_norm_squared(weight) == pytest.approx(2 * math.log(weight.norm()))
    total = log_weight_norm_squared(weight) + log_trace(logits, phi[None]).item()
    assert log_relative_sharpness(logits, phi[None], weight).item() == pytest.approx(total)


def test_logits_that_are_not_finite() -> None:
    inf, nan = float("inf"), float("nan")
    values = log_sum_p_one_minus_p(
        torch.tensor([[1.0, nan, 0.0], [0.0, -inf, -inf], [0.0, -inf, 0.0], [inf, 0.0, 0.0]])
    )
    assert values[0].isnan()
    assert values[1] == -inf
    assert values[2].item() == pytest.approx(math.log(0.5))
    assert values[3].isnan()


@pytest.mark.parametrize("shape", [(3,), (3, 1), (2, 3, 4)])
def test_refuses_what_is_no_matrix_of_logits(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected logits of shape"):
        log_sum_p_one_minus_p(torch.zeros(shape))
