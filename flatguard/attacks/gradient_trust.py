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

PAIRS = 10
"""Random directions; each is gone both ways."""

_LONGER, _SHORTER, _FARTHER = 1 / 16, 1 / 256, 1.0
"""Steps as shares of the radius. Roundings act over the longer ones; every smooth network is
straight over the shorter ones. A noise that is seen over both but not over a whole radius does not
mislead an attack."""

_BESIDE = 0.01
"""Of the radius. Pixels are multiples of 1/255, where defences often jump; beside them they do
not."""

_HALF = 0.5
_CURVED, _WHOLE, _STRAIGHT = 0.75, 0.9, 0.5
"""Curvature alone leaves a correlation of 0.75 over the longer steps. A whole gradient has 0.9 over
one of them. Over half a radius the margin falls by half of what the gradient predicts."""

_SEEN = 1e-6
"""A response smaller than this share of the margin is rounding."""


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
    eps, norm = budget.eps, budget.norm
    assert eps is not None, "the norms of the cascade have a radius"
    here = (images + random_step(images, _BESIDE * eps, norm)).clamp(0, 1)
    margin, slope = survivors.margin_and_slope(rows, here)
    dead = int((slope == 0).flatten(1).all(dim=1).sum())
    if dead > len(rows) / 2:
        return f"{dead} of {len(rows)} images that were looked at have no gradient"
    steps = [direction(torch.randn_like(images), norm) for _ in range(PAIRS)]

    def agreement(share: float) -> float:
        gone = [share * eps * step for step in steps]
        return float(_correlation(survivors, rows, here, slope, gone).nanmedian())

    found = _whole(agreement(_LONGER), agreement(_SHORTER))
    if found < _WHOLE:
        found = max(found, agreement(_FARTHER))
    if found < _WHOLE:
        return f"small random changes move its output otherwise (correlation {found:.2f}, not 1)"
    there = (here - _HALF * eps * direction(slope, norm)).clamp(0, 1)
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
    if longer < _CURVED:
        return longer
    return max(answers, default=1.0)


def _correlation(
    survivors: Survivors, rows: Tensor, here: Tensor, slope: Tensor, steps: Sequence[Tensor]
) -> Tensor:
    """Over the directions, of the margin's answer with the prediction, `(m,)`; NaN: no answer."""
    there = torch.stack([survivors.margins(rows, here + step) for step in steps])
    back = torch.stack([survivors.margins(rows, here - step) for step in steps])
    answer = (there - back) / 2.0
    least = _SEEN * (there + back).abs().mean(dim=0)
    predicted = torch.stack([(slope.double() * step.double()).flatten(1).sum(1) for step in steps])
    size = (answer.norm(dim=0) * predicted.norm(dim=0)).clamp_min(torch.finfo(answer.dtype).tiny)
    found = (answer * predicted).sum(dim=0) / size
    return torch.where(answer.abs().amax(dim=0) <= least, torch.nan, found)
