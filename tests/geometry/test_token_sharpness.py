"""κ of each target token against dense float64 Hessians, and against the unblocked closed form."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flatguard.geometry.decision import confidence, cross_entropy
from flatguard.geometry.sharpness import log_relative_sharpness, log_weight_norm_squared
from flatguard.geometry.token_sharpness import log_mean_kappa, token_geometry

F64 = torch.float64
seeds = st.integers(0, 2**31 - 1)


def drawn(seed: int, n: int, k: int, d: int, gap: float) -> tuple[torch.Tensor, ...]:
    """Features, weights and a bias whose logits span about `gap`, and a target for each row."""
    generator = torch.Generator().manual_seed(seed)
    phi, weight = (torch.randn(*s, dtype=F64, generator=generator) for s in ((n, d), (k, d)))
    bias = torch.randn(k, dtype=F64, generator=generator)
    logits = phi @ weight.T + bias
    factor = gap / float(logits.amax() - logits.amin())
    targets = torch.randint(k, (n,), generator=generator)
    return phi, weight * factor, bias * factor, targets


@settings(max_examples=30, deadline=None)
@given(
    seed=seeds, n=st.integers(1, 4), k=st.integers(2, 30), d=st.integers(1, 8),
    gap=st.floats(1e-3, 20.0), block=st.integers(1, 32),
)  # fmt: skip
def test_agrees_with_the_dense_hessian(
    seed: int, n: int, k: int, d: int, gap: float, block: int
) -> None:
    phi, weight, bias, targets = drawn(seed, n, k, d, gap)
    norm = log_weight_norm_squared(weight)
    ours = token_geometry(phi, weight, bias, targets, norm, block).log_kappa.exp()
    for row in range(n):

        def loss(flat: torch.Tensor, row: int = row) -> torch.Tensor:
            logits = flat.view_as(weight) @ phi[row] + bias
            return torch.nn.functional.cross_entropy(logits[None], targets[row : row + 1])

        hessian = torch.autograd.functional.hessian(loss, weight.flatten(), vectorize=True)
        truth = float(weight.square().sum() * hessian.diagonal().sum())
        assert float(ours[row]) == pytest.approx(truth, rel=1e-5)


@settings(max_examples=80, deadline=None)
@given(
    seed=seeds, n=st.integers(1, 6), k=st.integers(2, 200), gap=st.floats(1e-3, 900.0),
    block=st.integers(1, 250),
)  # fmt: skip
def test_blocks_give_what_the_whole_matrix_gives(
    seed: int, n: int, k: int, gap: float, block: int
) -> None:
    phi, weight, bias, targets = drawn(seed, n, k, 5, gap)
    found = token_geometry(phi, weight, bias, targets, log_weight_norm_squared(weight), block)
    logits = phi @ weight.T + bias
    whole = log_relative_sharpness(logits, phi, weight)
    torch.testing.assert_close(found.log_kappa, whole, rtol=1e-9, atol=1e-6)
    torch.testing.assert_close(found.loss, cross_entropy(logits, targets), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(found.confidence, confidence(logits), rtol=1e-9, atol=1e-12)
    assert torch.equal(found.predicted, logits.argmax(dim=1))


@settings(max_examples=20, deadline=None)
@given(seed=seeds, gap=st.floats(1e-3, 50.0))
def test_the_whole_target_is_the_mean_loss(seed: int, gap: float) -> None:
    """The trace is linear: κ of the mean loss over the tokens is the mean of their κ."""
    phi, weight, bias, targets = drawn(seed, 3, 6, 4, min(gap, 20.0))
    norm = log_weight_norm_squared(weight)
    ours = log_mean_kappa(token_geometry(phi, weight, bias, targets, norm).log_kappa.tolist())

    def loss(flat: torch.Tensor) -> torch.Tensor:
        logits = phi @ flat.view_as(weight).T + bias
        return torch.nn.functional.cross_entropy(logits, targets)

    hessian = torch.autograd.functional.hessian(loss, weight.flatten(), vectorize=True)
    truth = float(weight.square().sum() * hessian.diagonal().sum())
    assert math.exp(ours) == pytest.approx(truth, rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_measured_in_float64(dtype: torch.dtype) -> None:
    phi, weight, _, targets = drawn(3, 4, 50, 8, 12.0)
    phi, weight = phi.to(dtype), weight.to(dtype)
    half = token_geometry(phi, weight, None, targets, log_weight_norm_squared(weight))
    wide = token_geometry(
        phi.double(), weight.double(), None, targets, log_weight_norm_squared(weight.double())
    )
    assert torch.equal(half.log_kappa, wide.log_kappa)
    assert half.loss.dtype == F64


def test_no_tensor_grows_with_the_vocabulary() -> None:
    """The largest one is a block of W in float64, whatever k is."""
    from torch.utils._python_dispatch import TorchDispatchMode

    made: list[int] = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, given=(), named=None):  # type: ignore[no-untyped-def]
            result = function(*given, **(named or {}))
            parts = result if isinstance(result, tuple) else (result,)
            made.extend(one.numel() for one in parts if isinstance(one, torch.Tensor))
            return result

    phi, weight, targets = torch.randn(4, 16), torch.randn(20_000, 16), torch.arange(4)
    with Watch():
        token_geometry(phi, weight, None, targets, 0.0, block=512)
    assert max(made) == 512 * 16


def test_shapes_that_do_not_fit_are_refused() -> None:
    phi, weight, _, targets = drawn(0, 2, 6, 3, 1.0)
    for features, rows in ((phi, weight[:1]), (phi[0], weight), (phi[:, :2], weight)):
        with pytest.raises(ValueError, match="expected features"):
            token_geometry(features, rows, None, targets, 0.0)
