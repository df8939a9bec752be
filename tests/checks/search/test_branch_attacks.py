"""Digits' networks behind a gate, and beside one: what the attacks on branches find."""

from pathlib import Path

import pytest
import torch
from support.digits import digits, digits_net
from torch import Tensor, nn

import flatguard
from flatguard.checks.evidence import Evidence
from flatguard.checks.verdict import judge
from flatguard.runs.run import Run

TESTED = slice(1200, 1290)


def trained(seed: int) -> nn.Module:
    """Trained on noisy images, in a second."""
    torch.manual_seed(seed)
    net, (images, labels) = digits_net(), digits()
    optimiser = torch.optim.Adam(net.parameters(), 3e-3)
    for batch in torch.randperm(1200).split(64) * 8:
        shown = images[batch] + 0.2 * torch.randn_like(images[batch])
        optimiser.zero_grad()
        nn.functional.cross_entropy(net(shown), labels[batch]).backward()
        optimiser.step()
    return net.eval()


class Gated(nn.Module):
    """A fast wave of the image chooses between two networks."""

    def __init__(self, first: nn.Module, second: nn.Module):
        super().__init__()
        self.first, self.second = first, second
        self.weights = torch.randn(64, generator=torch.Generator().manual_seed(2)) / 8

    def forward(self, x: Tensor) -> Tensor:
        wave = torch.sin(80.0 * (x.flatten(1) @ self.weights))
        return torch.where((wave > 0)[:, None], self.first(x), self.second(x))


class Averaged(Gated):
    """The mean of both: no gate."""

    def forward(self, x: Tensor) -> Tensor:
        return (self.first(x) + self.second(x)) / 2


@pytest.fixture(scope="module")
def nets() -> tuple[nn.Module, nn.Module]:
    return trained(0), trained(1)


def evaluated(model: nn.Module, folder: Path) -> Run:
    images, labels = digits()
    return flatguard.evaluate(
        model.eval(),
        "torchattacks:PGD",
        data=(images[TESTED], labels[TESTED]),
        eps=0.13,
        attack_args={"steps": 20, "alpha": 0.04, "random_start": False},
        out=folder / "run",
    )


def test_a_gate_between_networks(nets: tuple[nn.Module, nn.Module], tmp_path: Path) -> None:
    evidence = Evidence.of(evaluated(Gated(*nets), tmp_path))
    assert judge(evidence).exit_code == 1
    probe = evidence.probe("switches")
    assert probe is not None
    assert probe.facts["branches"] == 2
    assert probe.facts["gates"] in (["gt"], ["__gt__"])
    found = probe.tables["choices"]
    assert set(found["sample"]) == evidence.standing
    assert {0, 1} == set(found["clean"])
    assert len(evidence.fooled_by("switch")) >= 0.5 * len(evidence.fooled)
    assert bool(found["frozen"].any())


def test_a_mean_of_networks(nets: tuple[nn.Module, nn.Module], tmp_path: Path) -> None:
    run = evaluated(Averaged(*nets), tmp_path)
    evidence = Evidence.of(run)
    assert judge(evidence).mechanism is None
    probe = evidence.probe("switches")
    assert probe is not None
    assert probe.facts["branches"] == 0
    assert not evidence.tried("switch")
