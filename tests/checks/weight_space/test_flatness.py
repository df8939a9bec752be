"""Flatness in weight space: known optima and definitions."""

import math

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from support.weight_space import few_digits, fitted, grey, linear, margin, scene

from flatguard.checks.weight_space.flatness import (
    Neighbourhood,
    climb,
    models_of,
    weight_flatness,
)
from flatguard.data.dataset import Batch
from flatguard.geometry.weights import Movable, layers_of, on_sphere
from flatguard.targets.weights_hash import weights_sha256

FEW = Neighbourhood(directions=3, worst_restarts=1, worst_steps=3)
LOSSES = ["clean_loss", "robust_loss"]


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
