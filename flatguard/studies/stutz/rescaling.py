"""Figure 4: a model beside its ×2 and ×0.5 variants, which compute the same function."""

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
from flatguard.studies.claim import Claim
from flatguard.studies.statement import statements
from flatguard.studies.study import Outcome, Subject

_CLAIMS = statements("stutz", "rescaling")
_FACTORS = (2.0, 0.5)
_POINTS = (-1.0, -0.5, 0.0, 0.5, 1.0)
_STEPS = 7
"""Of the attack at each of 41 points. The claim is that two curves are the same; few steps and few
samples show that."""


@dataclass(frozen=True)
class _Measured:
    """Of one model: mean robust loss at `(direction, t)`, and flatness by Eq. (1)."""

    curves: pd.DataFrame
    flatness: float
    samples: int

    @property
    def height(self) -> float:
        """From the lowest to the highest point of the landscape."""
        return float(np.ptp(self.curves.to_numpy()))


def rescaling_of(subject: Subject) -> Outcome:
    """Rescale the layers, and compare landscapes and flatness."""
    batch = subject.batch()
    request = subject.context.request
    assert request.eps is not None
    ascent = Ascent(parse_eps(request.eps), steps=_STEPS, restarts=1)
    scene = Scene([batch], ascent, subject.seed("figure 4"), Meter())
    own = _measured(subject.model, scene)
    claims: list[Claim] = []
    curves = {"1": own.curves}
    twins = {factor: rescaled(subject.model, batch.images, factor) for factor in _FACTORS}
    for factor, twin in twins.items():
        if not twin.layers:
            claims.append(_CLAIMS["landscape-x{factor}"].not_measured(factor=f"{factor:g}"))
            continue
        other = _measured(twin.model, scene)
        curves[f"{factor:g}"] = other.curves
        claims += [_same_landscape(factor, twin, own, other), _same_flatness(factor, own, other)]
    if twins[_FACTORS[1]].layers:
        claims.append(_absolute(subject, scene, twins[_FACTORS[1]], own))
    losses = {factor: found.to_numpy().tolist() for factor, found in curves.items()}
    return Outcome(tuple(claims), {"t": list(_POINTS), "robust_loss": losses})


def _measured(model: Any, scene: Scene) -> _Measured:
    found = landscape(model, scene, directions=DIRECTIONS, points=_POINTS).table
    curves = found.groupby(["direction", "t"])["robust_loss"].mean().unstack("t")
    losses = weight_flatness(model, scene, Neighbourhood(worst_restarts=0)).table
    means = losses.groupby("case")["robust_loss"].mean()
    flatness = float(means["average"] - means["reference"])
    return _Measured(curves, flatness, int(losses["sample"].nunique()))


def _same_landscape(factor: float, twin: Rescaled, own: _Measured, other: _Measured) -> Claim:
    return _CLAIMS["landscape-x{factor}"].judge(
        float((own.curves - other.curves).abs().to_numpy().max()) / own.height,
        samples=own.samples,
        is_share=True,
        factor=f"{factor:g}",
        layers=len(twin.layers),
        moved=twin.moved,
    )


def _same_flatness(factor: float, own: _Measured, other: _Measured) -> Claim:
    return _CLAIMS["flatness-x{factor}"].judge(
        abs(other.flatness - own.flatness) / abs(own.flatness),
        samples=own.samples,
        is_share=True,
        factor=f"{factor:g}",
        own=own.flatness,
        other=other.flatness,
    )


def _absolute(subject: Subject, scene: Scene, twin: Rescaled, own: _Measured) -> Claim:
    """The model's own steps, applied to the rescaled twin."""
    weights, movable = Movable(subject.model).weights, Movable(twin.model)
    around = Neighbourhood()
    rises = []
    reference = float(losses_at(movable, {}, scene).table["robust_loss"].mean())
    for index in range(around.directions):
        step = on_sphere(weights, around.xi, scene.generator("direction", index))
        rises.append(float(losses_at(movable, step, scene).table["robust_loss"].mean()))
    absolute = float(np.mean(rises)) - reference
    return _CLAIMS["normalisation-matters"].judge(
        abs(absolute - own.flatness) / abs(own.flatness),
        samples=own.samples,
        is_share=True,
        own=own.flatness,
        absolute=absolute,
    )
