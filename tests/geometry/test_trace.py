"""Estimated traces against the closed form, dense Hessians, and the paper's recursion."""

import pytest
import torch
from torch import nn

from flatguard.errors import UsageError
from flatguard.geometry.sharpness import log_relative_sharpness
from flatguard.geometry.trace import Method, layer_sharpness

F64 = torch.float64


@pytest.fixture
def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3)
    ).to(F64)


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(6, 6, dtype=F64, generator=generator), torch.arange(6) % 3


def dense_trace(network: nn.Sequential, x: torch.Tensor, y: torch.Tensor, layer: int) -> float:
    weight = network[layer].weight

    def loss(flat: torch.Tensor) -> torch.Tensor:
        logits = torch.func.functional_call(
            network, {f"{layer}.weight": flat.view_as(weight)}, (x[None],)
        )
        return nn.functional.cross_entropy(logits, y[None])

    flat = weight.detach().flatten()
    return float(torch.autograd.functional.hessian(loss, flat).diagonal().sum())


@pytest.mark.parametrize("method", ["hutchinson", "xtrace"])
def test_the_last_layer_agrees_with_the_closed_form(method: Method) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 12)).to(F64)
    x, y = torch.randn(6, 6, dtype=F64), torch.arange(6)
    found = layer_sharpness(network, x, y, "2", method=method, matvecs=8, repeats=40)
    with torch.no_grad():
        exact = log_relative_sharpness(network(x), network[:2](x), network[2].weight).exp()
    assert (found.standard_error < 0.2 * exact).all()
    assert ((found.kappa - exact).abs() <= 3 * found.standard_error).all()


@pytest.mark.parametrize("layer", [0, 2])
def test_deeper_layers_agree_with_dense_hessians(
    layer: int, network: nn.Sequential, batch: tuple[torch.Tensor, torch.Tensor]
) -> None:
    x, y = batch
    found = layer_sharpness(network, x, y, str(layer), matvecs=16, repeats=60, seed=3)
    norm = network[layer].weight.detach().square().sum()
    for i in range(len(x)):
        exact = dense_trace(network, x[i], y[i], layer) * norm
        assert abs(found.kappa[i] - exact) <= 3.5 * found.standard_error[i] + 1e-9


def test_the_recursion_of_appendix_b_is_exact(
    network: nn.Sequential, batch: tuple[torch.Tensor, torch.Tensor]
) -> None:
    """H^{l-1} = W_l' D H^l D W_l with D at the layer below, and H_W = (x x') ⊗ H^l."""
    x, y = batch
    for sample, label in zip(x, y, strict=True):
        inputs, activations = [], sample
        for module in network:
            if isinstance(module, nn.Linear):
                inputs.append(activations.detach())
            activations = module(activations)
        p = activations.detach().softmax(0)
        curvature = torch.diag(p) - torch.outer(p, p)
        for layer, value in ((4, inputs[2]), (2, inputs[1]), (0, inputs[0])):
            by_recursion = float(value.square().sum() * curvature.diagonal().sum())
            dense = dense_trace(network, sample, label, layer)
            assert by_recursion == pytest.approx(dense, rel=1e-9, abs=1e-12)
            weight = network[layer].weight.detach()
            active = torch.diag((value > 0).to(F64))  # ReLU's mask below this layer
            curvature = active @ weight.T @ curvature @ weight @ active


def test_the_seed_decides_and_the_generators_are_put_back(
    network: nn.Sequential, batch: tuple[torch.Tensor, torch.Tensor]
) -> None:
    x, y = batch
    before = torch.get_rng_state()
    first, again, other = (
        layer_sharpness(network, x[:2], y[:2], "2", repeats=2, seed=s).kappa for s in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_callers_state_does_not_matter(
    network: nn.Sequential, batch: tuple[torch.Tensor, torch.Tensor]
) -> None:
    wanted = layer_sharpness(network, *batch, "2", matvecs=2, repeats=2, seed=3)
    for entered in (torch.no_grad, torch.inference_mode):
        with entered():
            found = layer_sharpness(
                network, batch[0].clone(), batch[1].clone(), "2", matvecs=2, repeats=2, seed=3
            )
        assert torch.equal(found.kappa, wanted.kappa)


def test_bad_arguments(network: nn.Sequential, batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    with pytest.raises(UsageError, match=r"no layer '9' with weights; there are 0, 2, 4"):
        layer_sharpness(network, *batch, "9")
    with pytest.raises(UsageError, match="ask for fewer, or use hutchinson"):
        layer_sharpness(network, *batch, "4", method="xtrace", matvecs=8)
    with pytest.raises(UsageError, match="at least 2 repeats"):
        layer_sharpness(network, *batch, "4", repeats=1)
