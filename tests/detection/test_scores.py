"""One-pass scores against exact arithmetic, and against pytorch-ood where it is exact itself."""

import math

import mpmath
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pytorch_ood.detector import EnergyBased, Entropy, MaxSoftmax
from support import digits_target

from flatguard.detection.scores import (
    ONE_PASS,
    _energy,
    _log_entropy,
    _log_one_minus_top,
    forward_pass,
    one_pass_scores,
)
from flatguard.errors import ModelError
from flatguard.targets import Target

ROWS = st.lists(st.floats(-400, 400), min_size=2, max_size=6)


def exact(row: list[float]) -> tuple[float, float]:
    """log(1 - top p) and log entropy, with 400 digits."""
    with mpmath.workdps(400):
        weights = [mpmath.exp(mpmath.mpf(z)) for z in row]
        p = [w / sum(weights) for w in weights]
        rest = sum(p) - max(p)
        entropy = -sum(x * mpmath.log(x) for x in p)
        return float(mpmath.log(rest)), float(mpmath.log(entropy))


@given(ROWS)
def test_confidence_and_entropy_are_exact_however_sure_a_model_is(row: list[float]) -> None:
    logits = torch.tensor([row], dtype=torch.float64)
    rest, entropy = exact(row)
    assert float(_log_one_minus_top(logits)) == pytest.approx(rest, rel=1e-9, abs=1e-9)
    assert float(_log_entropy(logits)) == pytest.approx(entropy, rel=1e-9, abs=1e-9)


# pytorch-ood clips probabilities at 1e-7; with six logits in [-7, 7] none is that small.
@given(st.lists(st.floats(-7, 7), min_size=3, max_size=6))
def test_they_are_pytorch_oods_where_float64_holds_those(row: list[float]) -> None:
    logits = torch.tensor([row], dtype=torch.float64)
    confidence = -float(MaxSoftmax.score(logits))
    assert 1 - math.exp(float(_log_one_minus_top(logits))) == pytest.approx(confidence, abs=1e-12)
    assert float(_energy(logits)) == pytest.approx(float(EnergyBased.score(logits)), abs=1e-12)
    entropy = float(Entropy(None).predict_logits(logits))
    assert math.exp(float(_log_entropy(logits))) == pytest.approx(entropy, rel=1e-9)


def test_a_logit_of_minus_infinity_is_a_class_less() -> None:
    logits = torch.tensor([[2.0, 0.0, -math.inf], [2.0, 0.0, -800.0]])
    for score in (_log_one_minus_top, _log_entropy):
        values = score(logits)
        assert float(values[0]) == pytest.approx(float(values[1]))


def test_scores_of_a_real_network(digits_net: Target) -> None:
    images = digits_target.images(40)
    seen = forward_pass(digits_net, images)
    with torch.no_grad():
        logits = digits_net.model(images)
    torch.testing.assert_close(seen.logits, logits)
    p = logits.double().softmax(dim=1)
    weight = digits_net.head.module.weight.double()  # type: ignore[union-attr]
    dense = weight.square().sum() * (p * (1 - p)).sum(dim=1)
    dense = dense * seen.features.double().square().sum(dim=1)
    torch.testing.assert_close(seen.log_kappa, dense.log(), rtol=1e-6, atol=1e-6)
    assert set(one_pass_scores(seen)) == set(ONE_PASS)


def test_its_gradient_is_that_of_the_dense_formula(digits_net: Target) -> None:
    images = digits_target.images(6).requires_grad_(True)
    seen = forward_pass(digits_net, images)
    (ours,) = torch.autograd.grad(seen.log_kappa.sum(), images, retain_graph=True)
    p = seen.logits.double().softmax(dim=1)
    dense = ((p * (1 - p)).sum(dim=1) * seen.features.double().square().sum(dim=1)).log()
    (truth,) = torch.autograd.grad(dense.sum(), images)
    torch.testing.assert_close(ours, truth, rtol=1e-4, atol=1e-5)


def test_without_a_head_the_error_says_why() -> None:
    bare = Target(torch.nn.ReLU(), "bare", "here", "0" * 64, head_reason="it has no linear layer")
    with pytest.raises(ModelError, match="needs the model's head: it has no linear layer"):
        forward_pass(bare, torch.zeros(1, 1, 2, 2))
