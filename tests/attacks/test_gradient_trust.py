"""A few passes tell a gradient that is right from one that misses, turns or stops."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from flatguard.attacks import build_attack
from flatguard.attacks.gradient_trust import PAIRS, why_not
from flatguard.attacks.monitor import NoMonitor
from flatguard.attacks.survivors import Images, Survivors
from flatguard.geometry.budget import Budget, Norm

BUDGETS: dict[Norm, float] = {"Linf": 0.03, "L2": 0.5, "L1": 1.0}


class Net(nn.Module):
    """A small smooth network behind a stage of its pixels; counts the rows that it is asked."""

    def __init__(self, stage: Callable[[Tensor], Tensor] = lambda x: x):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(192, 32), nn.Tanh(), nn.Linear(32, 10))
        self.stage, self.rows = stage, 0

    def forward(self, images: Tensor) -> Tensor:
        self.rows += len(images)
        logits: Tensor = self.layers(self.stage(images))
        return logits


class Rippled(Net):
    """A wave of the pixels is added to the logits: true slopes, which lead nowhere."""

    def forward(self, images: Tensor) -> Tensor:
        wave = 0.05 * torch.sin(images.flatten(1).sum(dim=1) * 10.0)
        return super().forward(images) + wave[:, None] * torch.linspace(-1, 1, 10)


def half_cut(images: Tensor) -> Tensor:
    """Half of the pixels reach the logits without a gradient."""
    kept = torch.arange(images.shape[-1]) % 2 == 0
    return torch.where(kept, images, images.detach())


STEADY = [
    lambda x: x, lambda x: (8 * x).sigmoid(), lambda x: x.clamp(0.1, 0.9),
    lambda x: nn.functional.avg_pool2d(x, 3, 1, 1),
]  # fmt: skip


def looked_at(model: Net, norm: Norm, count: int = 8) -> tuple[str | None, int]:
    """What is found, and the passes that it took."""
    images = 0.2 + 0.6 * torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        labels = model(images).argmax(dim=1)
    budget = Budget(norm, BUDGETS[norm])
    found = Survivors(model, Images(images, labels), budget, NoMonitor())
    before, model.rows = found.passes, 0
    torch.manual_seed(2)
    why = why_not(found, images, torch.arange(count), budget)
    assert found.passes - before == model.rows + count  # the one gradient's backward passes
    return why, model.rows


@pytest.mark.parametrize("stage", STEADY, ids=["plain", "sigmoid", "clamp", "blur"])
@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
def test_nothing_speaks_against_a_smooth_network(
    norm: Norm, stage: Callable[[Tensor], Tensor]
) -> None:
    why, rows = looked_at(Net(stage).eval(), norm)
    assert why is None
    assert rows == 8 * (4 * PAIRS + 2)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (Net(lambda x: (x * 8).round() / 8), "8 of 8 images that were looked at have no gradient"),
        (Net(torch.Tensor.detach), "have no gradient"),
        (Net(half_cut), "small random changes move its output otherwise"),
        (Rippled(), "along it, the output moves by"),
    ],
    ids=["rounded", "detached", "half cut", "rippled"],
)
def test_what_misleads_is_named(model: Net, expected: str) -> None:
    why, _ = looked_at(model.eval(), "Linf")
    assert why is not None
    assert expected in why


def test_the_cascade_says_why_and_attacks_without_gradients() -> None:
    model = Net(half_cut).eval()
    images = 0.2 + 0.6 * torch.rand(12, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        labels = model(images).argmax(dim=1)
    attack = build_attack("cascade", Budget("Linf", 0.002), 10, {})
    (warning,) = attack.perturb(model, images, labels, 0).warnings
    assert warning.startswith("gradients mislead the cascade: small random changes")
    assert "use --checks standard" in warning
