"""Figure 4: a model beside its ×2 and ×0.5 variants, which are the same function."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from flatguard.checks.context import Meter
from flatguard.checks.weight_space.flatness import (
    Neighbourhood,
    Scene,
    losses_at,
    weight_flatness,
)
from flatguard.checks.weight_space.landscape import DIRECTIONS, landscape
from flatguard.checks.weight_space.rescaling import Rescaled, rescaled
from flatguard.checks.weight_space.robust_loss import Ascent
from flatguard.geometry.budget import parse_eps
from flatguard.geometry.weights import Movable, on_sphere
from flatguard.studies.claim import Claim, agrees_if, not_measured
from flatguard.studies.study import Outcome, Subject

FACTORS = (2.0, 0.5)
POINTS = (-1.0, -0.5, 0.0, 0.5, 1.0)
STEPS, SAMPLES = 7, 16
"""Of the attack at each of 41 points, and how many samples: the claim is that two curves are one,
and that needs no small standard error."""

TOLERANCE, CHANGES = 0.01, 0.1
RULE = "it moves by less than 1%"


@dataclass(frozen=True)
class Measured:
    """Of one model: mean robust loss at `(direction, t)`, and flatness by Eq. (1)."""

    curves: pd.DataFrame
    flatness: float
    samples: int

    @property
    def height(self) -> float:
        """From the lowest to the highest point of the landscape."""
        return float(np.ptp(self.curves.to_numpy()))


def study(subject: Subject) -> Outcome:
    """Rescale the layers, and compare landscapes and flatness."""
    batch = subject.batch()
    request = subject.context.request
    assert request.eps is not None
    ascent = Ascent(parse_eps(request.eps), steps=STEPS, restarts=1)
    scene = Scene([batch], ascent, subject.seed("figure 4"), Meter())
    own = _measured(subject.model, scene)
    claims: list[Claim] = []
    curves = {"1": own.curves}
    twins = {factor: rescaled(subject.model, batch.images, factor) for factor in FACTORS}
    for factor, twin in twins.items():
        if not twin.layers:
            claims.append(_nothing(factor))
            continue
        other = _measured(twin.model, scene)
        curves[f"{factor:g}"] = other.curves
        claims += [_same_landscape(factor, twin, own, other), _same_flatness(factor, own, other)]
    if twins[FACTORS[1]].layers:
        claims.append(_absolute(subject, scene, twins[FACTORS[1]], own))
    return Outcome(tuple(claims), _figures(curves))


def _measured(model: Any, scene: Scene) -> Measured:
    found = landscape(model, scene, directions=DIRECTIONS, points=POINTS).table
    curves = found.groupby(["direction", "t"])["robust_loss"].mean().unstack("t")
    losses = weight_flatness(model, scene, Neighbourhood(worst_restarts=0)).table
    means = losses.groupby("case")["robust_loss"].mean()
    flatness = float(means["average"] - means["reference"])
    return Measured(curves, flatness, int(losses["sample"].nunique()))


def _same_landscape(factor: float, twin: Rescaled, own: Measured, other: Measured) -> Claim:
    moved = float((own.curves - other.curves).abs().to_numpy().max()) / own.height
    return Claim(
        name=f"landscape-x{factor:g}",
        claim=f"The landscape of the ×{factor:g} variant is the model's own.",
        paper="the same curves",
        ours=moved,
        samples=own.samples,
        is_share=True,
        rule=f"no point of ten directions {RULE} of the landscape's height",
        verdict=agrees_if(moved < TOLERANCE),
        note=f"{len(twin.layers)} layers were rescaled, the logits moved by {twin.moved:.1g} of "
        "their spread. The same random numbers on both sides, so there is no interval.",
    )


def _same_flatness(factor: float, own: Measured, other: Measured) -> Claim:
    moved = abs(other.flatness - own.flatness) / abs(own.flatness)
    return Claim(
        name=f"flatness-x{factor:g}",
        claim=f"Flatness, Eq. (1) and (2), of the ×{factor:g} variant is the model's own.",
        paper="scale-invariant by construction",
        ours=moved,
        samples=own.samples,
        is_share=True,
        rule=RULE,
        verdict=agrees_if(moved < TOLERANCE),
        note=f"{own.flatness:.4g} and {other.flatness:.4g}, from the same random numbers.",
    )


def _absolute(subject: Subject, scene: Scene, twin: Rescaled, own: Measured) -> Claim:
    """The model's own steps, put on the rescaled twin."""
    weights, movable = Movable(subject.model).weights, Movable(twin.model)
    around = Neighbourhood()
    rises = []
    reference = float(losses_at(movable, {}, scene).table["robust_loss"].mean())
    for index in range(around.directions):
        step = on_sphere(weights, around.xi, scene.generator("direction", index))
        rises.append(float(losses_at(movable, step, scene).table["robust_loss"].mean()))
    absolute = float(np.mean(rises)) - reference
    moved = abs(absolute - own.flatness) / abs(own.flatness)
    return Claim(
        name="normalisation-matters",
        claim="Without a relative ball, scale would change the number.",
        paper="important to handle different scales",
        ours=moved,
        samples=own.samples,
        is_share=True,
        rule="the same steps on the ×0.5 variant move it by more than 10%",
        verdict=agrees_if(moved > CHANGES),
        note=f"{own.flatness:.4g} becomes {absolute:.4g}.",
    )


def _nothing(factor: float) -> Claim:
    return not_measured(
        f"landscape-x{factor:g}",
        f"The landscape of the ×{factor:g} variant is the model's own.",
        "the same curves",
        RULE,
        "no two layers of this model could be rescaled without changing its logits",
    )


def _figures(curves: dict[str, pd.DataFrame]) -> dict[str, Any]:
    return {
        "t": list(POINTS),
        "robust_loss": {factor: found.to_numpy().tolist() for factor, found in curves.items()},
    }
