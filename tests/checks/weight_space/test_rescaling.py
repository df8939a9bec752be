"""The same function with other weights has the same flatness."""

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from support.architectures import Block
from support.weight_space import few_digits, fitted, scene
from torch import nn

from flatguard.checks.weight_space.flatness import Neighbourhood, weight_flatness
from flatguard.checks.weight_space.landscape import landscape
from flatguard.checks.weight_space.rescaling import rescaled
from flatguard.geometry.weights import Movable, layers_of, on_sphere
from flatguard.targets.weights_hash import weights_sha256

FEW = Neighbourhood(directions=3, worst_restarts=1, worst_steps=3)
LOSSES = ["clean_loss", "robust_loss"]


class Normed(nn.Module):
    """Batch normalisations with statistics of their own, and a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.block = Block(4, 4, 1)
        self.head = nn.Linear(4, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.block(torch.relu(self.norm(self.stem(x))))
        return self.head(out.mean(dim=(2, 3)))


def normed() -> nn.Module:
    torch.manual_seed(0)
    model = Normed()
    for _ in range(20):
        model(few_digits().images + 0.1 * torch.randn(40, 1, 8, 8))
    return model.eval()


@pytest.mark.parametrize("factor", [2.0, 0.5])
def test_rescaled_layers_give_the_same_numbers_to_the_last_bit(factor: float) -> None:
    """Figure 4's ×2 and ×0.5: factors of 2 are exact, so is the invariance."""
    model, where = fitted(), scene(few_digits())
    twin = rescaled(model, few_digits().images, factor)
    assert twin.layers == ("0", "5")
    assert twin.moved == 0.0
    assert torch.equal(twin.model[0].weight, factor * model[0].weight)
    assert weights_sha256(twin.model) != weights_sha256(model)
    for measure in (
        lambda m: weight_flatness(m, where, FEW).table,
        lambda m: landscape(m, where, directions=2, points=(-0.5, 0.0, 1.0)).table,
    ):
        pd.testing.assert_frame_equal(measure(model), measure(twin.model), check_exact=True)


@pytest.mark.parametrize("factor", [2.0, 0.5])
def test_layers_before_batch_normalisation_may_be_rescaled(factor: float) -> None:
    model, where = normed(), scene(few_digits())
    twin = rescaled(model, few_digits().images, factor)
    assert twin.layers == ("stem", "block.conv1", "block.conv2")
    assert twin.moved < 1e-5
    one, other = weight_flatness(model, where, FEW), weight_flatness(twin.model, where, FEW)
    np.testing.assert_allclose(one.table[LOSSES], other.table[LOSSES], rtol=1e-3, atol=1e-4)


def test_an_absolute_ball_is_not_invariant() -> None:
    """Why the ball is relative: the same ν hurts the shrunken layer more."""
    model, where = fitted(), scene(few_digits())
    twin = rescaled(model, few_digits().images, 0.1).model
    step = on_sphere(layers_of(model), 0.3, where.generator("direction", 0))
    seen = []
    for net in (model, twin):
        with Movable(net).at(step) as moved, torch.no_grad():
            seen.append(float(F.cross_entropy(moved(few_digits().images), few_digits().labels)))
    assert seen[1] > 2 * seen[0]


def test_what_cannot_be_rescaled_is_left_as_it_was() -> None:
    """A saturating function between two layers lets no factor through."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Tanh(), nn.Linear(8, 10)).eval()
    twin = rescaled(net, few_digits().images, 2.0)
    assert twin.layers == ()
    assert weights_sha256(twin.model) == weights_sha256(net)
