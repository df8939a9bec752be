"""Traces for other losses, against dense float64 Hessians and in the limits of confidence."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flatguard.geometry.losses import (
    brier_loss,
    brier_trace,
    focal_loss,
    focal_trace,
    soft_target_loss,
    soft_target_trace,
)
from flatguard.geometry.sharpness import log_trace

F64 = torch.float64
seeds = st.integers(0, 2**31 - 1)
Loss = Callable[[torch.Tensor], torch.Tensor]


def problem(seed: int, k: int, d: int, gap: float) -> tuple[torch.Tensor, torch.Tensor, int]:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(k, d, dtype=F64, generator=generator)
    phi = torch.randn(d, dtype=F64, generator=generator)
    logits = weight @ phi
    return weight * (gap / (logits.max() - logits.min())), phi, seed % k


def dense_trace(weight: torch.Tensor, phi: torch.Tensor, loss: Loss) -> float:
    hessian = torch.autograd.functional.hessian(
        lambda flat: loss((flat.view_as(weight) @ phi).log_softmax(0)), weight.flatten()
    )
    return float(hessian.diagonal().sum())


cases = given(seed=seeds, k=st.integers(2, 12), d=st.integers(1, 4), gap=st.floats(1e-2, 15.0))


@settings(max_examples=40, deadline=None)
@cases
@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 5.0])
def test_focal(gamma: float, seed: int, k: int, d: int, gap: float) -> None:
    weight, phi, y = problem(seed, k, d, gap)
    expected = dense_trace(weight, phi, lambda lp: -((1 - lp[y].exp()) ** gamma) * lp[y])
    found = focal_trace((weight @ phi)[None], torch.tensor([y]), phi[None], gamma)
    scale = abs(dense_trace(weight, phi, lambda lp: -lp[y]))  # where the trace crosses 0
    assert found.value().item() == pytest.approx(expected, rel=1e-6, abs=1e-9 * scale)


@settings(max_examples=60, deadline=None)
@cases
def test_brier(seed: int, k: int, d: int, gap: float) -> None:
    weight, phi, y = problem(seed, k, d, gap)
    target = torch.nn.functional.one_hot(torch.tensor(y), k)
    expected = dense_trace(weight, phi, lambda lp: (lp.exp() - target).square().sum())
    found = brier_trace((weight @ phi)[None], torch.tensor([y]), phi[None])
    scale = abs(dense_trace(weight, phi, lambda lp: -lp[y]))
    assert found.value().item() == pytest.approx(expected, rel=1e-6, abs=1e-9 * scale)


@settings(max_examples=40, deadline=None)
@cases
def test_kl_to_a_soft_target(seed: int, k: int, d: int, gap: float) -> None:
    weight, phi, _ = problem(seed, k, d, gap)
    q = torch.rand(k, dtype=F64, generator=torch.Generator().manual_seed(seed)) + 1e-3
    q = q / q.sum()
    expected = dense_trace(weight, phi, lambda lp: (q * (q.log() - lp)).sum())
    found = soft_target_trace((weight @ phi)[None], phi[None])
    assert found.value().item() == pytest.approx(expected, rel=1e-5)


def test_focal_without_focus_is_cross_entropy() -> None:
    logits = torch.randn(50, 7, generator=torch.Generator().manual_seed(0)) * 200
    phi = torch.rand(50, 5, generator=torch.Generator().manual_seed(1))
    labels = torch.arange(50) % 7
    found = focal_trace(logits, labels, phi, 0.0)
    assert (found.sign == 1).all()
    assert torch.allclose(found.log_abs, log_trace(logits, phi), rtol=1e-9)


@pytest.mark.parametrize("gap", [50.0, 500.0, 5000.0])
def test_the_limits_of_confidence(gap: float) -> None:
    """log|trace| for p_t -> 1, by hand: v = e^-gap, two classes, so a = b = c = 1."""
    logits, phi = torch.tensor([[gap, 0.0]], dtype=F64), torch.ones(1, 1)
    right, wrong = torch.tensor([0]), torch.tensor([1])
    brier = brier_trace(logits, right, phi)
    assert brier.sign.item() == 1
    assert brier.log_abs.item() == pytest.approx(math.log(16) - 2 * gap)
    brier = brier_trace(logits, wrong, phi)
    assert brier.sign.item() == -1
    assert brier.log_abs.item() == pytest.approx(math.log(8) - gap)
    focal = focal_trace(logits, right, phi, 2.0)
    assert focal.sign.item() == 1
    # u = r = a = 1: (1 - 1) + 2 (1 + 4 + 2) + 4 (2 - 1) = 18
    assert focal.log_abs.item() == pytest.approx(math.log(18) - 3 * gap)


def test_focal_is_negative_where_the_model_is_surely_wrong() -> None:
    """Two classes, u = e^-50: the bracket is u (2 + 4γ - 2γ·50), which is negative."""
    logits, phi = torch.tensor([[50.0, 0.0]], dtype=F64), torch.ones(1, 1)
    found = focal_trace(logits, torch.tensor([1]), phi, 2.0)
    assert found.sign.item() == -1
    assert found.log_abs.item() == pytest.approx(-50 + math.log(190), rel=1e-9)


def test_a_negative_gamma_is_refused() -> None:
    with pytest.raises(ValueError, match="gamma of at least 0"):
        focal_trace(torch.zeros(1, 2), torch.tensor([0]), torch.ones(1, 1), -1.0)


@settings(max_examples=60, deadline=None)
@cases
def test_the_losses_themselves(seed: int, k: int, d: int, gap: float) -> None:
    weight, phi, y = problem(seed, k, d, gap)
    logits, label = (weight @ phi)[None], torch.tensor([y])
    log_p = logits[0].log_softmax(0)
    p, hot = log_p.exp(), torch.nn.functional.one_hot(torch.tensor(y), k).double()
    expected = -((1 - p[y]) ** 3) * log_p[y]
    assert focal_loss(logits, label, 3.0).item() == pytest.approx(expected.item(), rel=1e-6)
    expected = (p - hot).square().sum()
    assert brier_loss(logits, label).item() == pytest.approx(expected.item(), rel=1e-6)
    for alpha in (0.1, 0.5, 1.0):
        q = (1 - alpha) * hot + alpha / k
        expected = (q * (q.log() - log_p)).sum()
        found = soft_target_loss(logits, label, alpha).item()
        assert found == pytest.approx(expected.item(), rel=1e-9, abs=1e-14)


def test_losses_of_sure_models_are_small_not_zero() -> None:
    """v = e^-100, two classes: focal v² · v, Brier v² (1 + 1), and the cross-entropy v."""
    logits, y = torch.tensor([[100.0, 0.0]]), torch.tensor([0])
    assert focal_loss(logits, y, 2.0).log().item() == pytest.approx(-300)
    assert brier_loss(logits, y).log().item() == pytest.approx(-200 + math.log(2))
    assert soft_target_loss(logits, y, 0.0).log().item() == pytest.approx(-100)
    with pytest.raises(ValueError, match=r"label smoothing in \[0, 1\]"):
        soft_target_loss(logits, y, 1.5)
