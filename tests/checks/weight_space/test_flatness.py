"""Flatness in weight space: known optima, definitions, and invariance under rescaling."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from support.architectures import Block
from support.weight_space import few_digits, fitted, grey, linear, margin, scene
from torch import nn

from flatguard.checks.weight_space.flatness import (
    Neighbourhood,
    climb,
    models_of,
    weight_flatness,
)
from flatguard.checks.weight_space.landscape import landscape
from flatguard.checks.weight_space.rescaling import rescaled
from flatguard.data.dataset import Batch
from flatguard.geometry.weights import Movable, layers_of, on_sphere
from flatguard.targets.target import weights_sha256

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


def test_an_average_is_the_loss_of_the_perturbed_model_attacked_anew() -> None:
    """Each row is what a model built by hand at w + ν gives."""
    model, where = fitted(), scene(few_digits())
    found = weight_flatness(model, where, FEW)
    weights = layers_of(model)
    for index in range(FEW.directions):
        step = on_sphere(weights, FEW.xi, where.generator("direction", index))
        by_hand = fitted()
        with torch.no_grad():
            for name, nu in step.items():
                by_hand.get_parameter(name).add_(nu.float())
        alone = weight_flatness(by_hand, where, Neighbourhood(directions=0, worst_restarts=0))
        rows = found.table[(found.table["case"] == "average") & (found.table["index"] == index)]
        np.testing.assert_allclose(rows[LOSSES], alone.table[LOSSES], rtol=1e-4, atol=1e-6)


def test_the_worst_case_of_a_linear_model_is_found() -> None:
    """One image: the margin falls by ξ‖W‖ times √2 ‖x‖, along [-x, x]."""
    model, batch = linear(), grey(1)
    around = Neighbourhood(directions=0, worst_xi=0.05, worst_restarts=2, worst_steps=20)
    found = weight_flatness(model, scene(batch), around).table
    norm = float(model.head.weight.detach().double().norm())
    reach = 0.05 * norm * math.sqrt(2) * float(batch.images.double().norm())
    truth = float(F.softplus(-(margin(model, batch) - reach)))
    worst = found.loc[found["case"] == "worst-clean", "clean_loss"]
    np.testing.assert_allclose(worst, truth, rtol=1e-3)


def test_climbs_stay_in_their_ball_and_beat_chance() -> None:
    model, where = fitted(), scene(few_digits(), steps=10)
    around = Neighbourhood(xi=0.02, worst_xi=0.02, directions=5, worst_restarts=1)
    movable = Movable(model)
    for robust in (False, True):
        step = climb(movable, where, around, 0, robust=robust)
        for name, nu in step.items():
            radius = 0.02 * float(movable.weights[name].double().norm())
            assert float(nu.norm()) <= radius * (1 + 1e-9)
    means = weight_flatness(model, where, around).table.groupby("case")[LOSSES].mean()
    assert means.loc["worst-clean", "clean_loss"] > means.loc["average", "clean_loss"]
    assert means.loc["worst-robust", "robust_loss"] > means.loc["average", "robust_loss"]
    assert means.loc["worst-robust", "robust_loss"] > means.loc["worst-clean", "robust_loss"] * 0.9


def test_the_users_model_stays_and_every_model_is_named() -> None:
    model, where = fitted(), scene(few_digits())
    before, generator = weights_sha256(model), torch.random.get_rng_state()
    found = weight_flatness(model, where, FEW)
    assert weights_sha256(model) == before
    assert torch.equal(torch.random.get_rng_state(), generator)
    assert len(found.models) == models_of(FEW)
    assert found.models["weights_sha256"].is_unique
    reference = found.models.loc[found.models["case"] == "reference", "weights_sha256"]
    assert reference.tolist() == [before]
    again = weight_flatness(model, where, FEW)
    pd.testing.assert_frame_equal(found.table, again.table)
    pd.testing.assert_frame_equal(found.models, again.models)
    other = weight_flatness(model, scene(few_digits(), seed=1), FEW)
    assert not other.table[LOSSES].equals(found.table[LOSSES])


def test_batches_make_one_table() -> None:
    """Cut into batches, the same samples have the same clean losses, in the same order."""
    model, whole = fitted(), few_digits()
    parts = [
        Batch(x, y) for x, y in zip(whole.images.split(15), whole.labels.split(15), strict=True)
    ]
    one = weight_flatness(model, scene(whole), FEW).table
    cut = weight_flatness(model, scene(*parts), FEW).table
    same = one["case"].isin(["reference", "average"])
    assert one["sample"].tolist() == cut["sample"].tolist()
    np.testing.assert_allclose(one["clean_loss"][same], cut["clean_loss"][same], rtol=1e-5)


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


def test_the_landscape_passes_through_the_model_and_rises_away_from_it() -> None:
    model, where = fitted(200), scene(few_digits())
    found = landscape(model, where, directions=3, points=(-1.0, 0.0, 1.0))
    means = found.table.groupby(["direction", "t"])[LOSSES].mean().unstack("t")
    here = weight_flatness(model, where, Neighbourhood(directions=0, worst_restarts=0))
    for loss in LOSSES:
        np.testing.assert_allclose(means[loss][0.0], here.table[loss].mean(), rtol=1e-12)
        assert (means[loss][1.0] > means[loss][0.0]).all()
        assert (means[loss][-1.0] > means[loss][0.0]).all()
