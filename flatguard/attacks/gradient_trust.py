"""Does the model do what its gradient predicts? Measured on a few samples for few passes.

It is the short form of the check gradient-truth (`flatguard.checks.gradient_truth`): no float64, no
repaired gradients, one point beside each clean image.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from flatguard.attacks.survivors import Survivors
from flatguard.geometry.ball import direction, random_step
from flatguard.geometry.budget import Budget
from flatguard.geometry.response import (
    CURVED,
    FARTHER,
    LONGER,
    SHORTER,
    correlation,
    half_differences,
    predictions,
)

PAIRS = 10
"""Random directions; each is gone both ways."""

_BESIDE = 0.01
"""Of the radius. Pixels are multiples of 1/255, where defences often jump; beside them they do
not."""

_HALF = 0.5
_WHOLE, _STRAIGHT = 0.9, 0.5
"""A whole gradient has this correlation over one of the lengths, and over half a radius the margin
falls by this much of what it predicts."""


def beside(images: Tensor, budget: Budget) -> Tensor:
    """A point next to each image."""
    return (images + random_step(images, _BESIDE * budget.radius, budget.norm)).clamp(0, 1)


def half_a_radius(here: Tensor, slope: Tensor, budget: Budget) -> Tensor:
    """Where one step of half a radius against the slope leads."""
    return (here - _HALF * budget.radius * direction(slope, budget.norm)).clamp(0, 1)


def why_not(survivors: Survivors, images: Tensor, rows: Tensor, budget: Budget) -> str | None:
    """Why gradients are not to be trusted, in words; None where nothing speaks against them.

    - Most of the samples have no gradient.
    - The median correlation of how the margin answers to small random steps with what the gradient
      predicts is low: a part of the gradient is missing, or it is wrong.
    - Over half a radius along the gradient the margin falls by less than half of what it predicts.

    Args:
        survivors: counts the passes.
        images: clean, `(m, ...)`, of these rows.
        rows: the samples, `(m,)`.
        budget: with a radius.

    Cost: 4 · `PAIRS` + 3 passes for each sample; 2 · `PAIRS` more where the gradient looks wrong.
    """
    here = beside(images, budget)
    margin, slope = survivors.margin_and_slope(rows, here)
    dead = int((slope == 0).flatten(1).all(dim=1).sum())
    if dead > len(rows) / 2:
        return f"{dead} of {len(rows)} images that were looked at have no gradient"
    steps = [direction(torch.randn_like(images), budget.norm) for _ in range(PAIRS)]
    predicted = predictions(slope, steps)

    def agreement(share: float) -> float:
        gone = [share * budget.radius * step for step in steps]
        return float(correlation(_answers(survivors, rows, here, gone), predicted).nanmedian())

    found = _whole(agreement(LONGER), agreement(SHORTER))
    if found < _WHOLE:
        found = max(found, agreement(FARTHER))
    if found < _WHOLE:
        return f"small random changes move its output otherwise (correlation {found:.2f}, not 1)"
    there = half_a_radius(here, slope, budget)
    promised = (slope.double() * (here - there).double()).flatten(1).sum(dim=1)
    followed = ((margin - survivors.margins(rows, there)) / promised)[promised > 0]
    moved = float(followed.median()) if len(followed) else 1.0
    if moved < _STRAIGHT:
        return f"along it, the output moves by {max(0.0, moved):.0%} of what it predicts"
    return None


def _whole(longer: float, shorter: float) -> float:
    """How much of the answer the gradient explains; 1 where there is no answer at all.

    A low correlation over the longer steps is no curvature, whatever the shorter ones say.
    """
    answers = [each for each in (longer, shorter) if not math.isnan(each)]
    if longer < CURVED:
        return longer
    return max(answers, default=1.0)


def _answers(survivors: Survivors, rows: Tensor, here: Tensor, steps: Sequence[Tensor]) -> Tensor:
    """Of the margin, in clean gaps, `(steps, m)`."""
    scale = survivors.scale[rows]
    there = torch.stack([survivors.margins(rows, here + step) / scale for step in steps])
    back = torch.stack([survivors.margins(rows, here - step) / scale for step in steps])
    return half_differences(there, back)
