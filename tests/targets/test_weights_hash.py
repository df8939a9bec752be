"""The hash of weights covers what decides answers, wherever torch holds it."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from flatguard.targets.weights_hash import not_covered, weights_sha256


class Net(nn.Module):
    """Weights in every place that a module may have."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(4, 3)
        self.register_buffer("kept", torch.ones(3))
        self.register_buffer("passing", torch.ones(3), persistent=False)
        self.parts = [nn.Linear(4, 3), {"deep": nn.BatchNorm1d(3)}]
        self.state = WithState()
        self.table = torch.ones(3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x)
        return out


class WithState(nn.Module):
    shift = 0.0

    def get_extra_state(self) -> Any:
        return {"shift": self.shift}

    def set_extra_state(self, state: Any) -> None:
        self.shift = state["shift"]


def add(tensor: Tensor) -> None:
    with torch.no_grad():
        tensor.view(-1)[-1] += 1e-6


@pytest.mark.parametrize(
    "change",
    [
        lambda net: add(net.layer.weight),
        lambda net: add(net.kept),
        lambda net: add(net.passing),
        lambda net: add(net.parts[0].bias),
        lambda net: add(net.parts[1]["deep"].running_var),
        lambda net: setattr(net.state, "shift", 1.0),
        lambda net: setattr(net.layer, "bias", None),
        lambda net: net.parts.append(nn.Linear(1, 1)),
    ],
)
def test_every_change_shows(change: Callable[[Net], None]) -> None:
    net = Net()
    before = weights_sha256(net)
    assert weights_sha256(Net()) == before
    change(net)
    assert weights_sha256(net) != before


def test_calls_do_not_change_it() -> None:
    net = Net().eval()
    before = weights_sha256(net)
    net.last = net(torch.ones(1, 4))
    assert weights_sha256(net) == before


def test_what_is_not_covered_is_named() -> None:
    assert not_covered(Net()) == ("table",)
    assert not_covered(nn.Linear(2, 2)) == ()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_quantised_weights() -> None:
    from torch.ao.quantization import quantize_dynamic

    def quantised(factor: float) -> nn.Module:
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(4, 3))
        with torch.no_grad():
            net[0].weight.mul_(factor)
        model: nn.Module = quantize_dynamic(net, {nn.Linear}, dtype=torch.qint8)
        return model

    one, same, other = quantised(1.0), quantised(1.0), quantised(1.5)
    assert weights_sha256(one) == weights_sha256(same)
    assert weights_sha256(one) != weights_sha256(other)
    assert not_covered(one) == ()


def test_sparse_and_half_weights() -> None:
    net = nn.Linear(4, 3)
    net.register_buffer("adjacency", torch.eye(3).to_sparse())
    before = weights_sha256(net)
    net.adjacency = (2 * torch.eye(3)).to_sparse()
    assert weights_sha256(net) != before
    assert weights_sha256(net.to(torch.bfloat16)) != before
