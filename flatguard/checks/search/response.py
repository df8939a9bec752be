"""How well a gradient predicts what small random steps do to the margin.

A gradient may be right along its own direction and still miss a part of the computation, such as
features that pass a rounding. Then the margin answers to random steps in a way that the gradient
does not predict.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import torch
from torch import Tensor

from flatguard.checks.context import CheckContext, Rows
from flatguard.checks.search.candidates import Candidate
from flatguard.checks.search.gradients import Gradient, Twin, margin_loss, margin_of, plain
from flatguard.geometry.ball import direction

SHARE = 1 / 16
"""Of the radius: smooth networks are straight over such a step, and roundings still act."""

_PAIRS = 12
_SEEN = 1e-6
"""A response that is smaller than this share of the margin is rounding of float32."""


def responses(
    context: CheckContext, rows: Rows, images: Tensor, wide: Twin | None, found: Sequence[Candidate]
) -> pd.DataFrame:
    r"""The correlation over random directions $s$ of response and prediction, for each candidate.

    The response is $[m(x + hs) - m(x - hs)] / 2$, the prediction $h \langle \nabla m, s \rangle$;
    $m$ is the margin and $h$ the share `SHARE` of the radius. NaN where nothing responds.

    Args:
        context: of the check.
        rows: the samples.
        images: the points, `(n, ...)`.
        wide: the target in float64; None where it has no such twin.
        found: directions whose margin is differentiated; `raw` is the target's own.

    Cost: 2 · `_PAIRS` forward passes, and one forward and backward pass a candidate.
    """
    twin, h = wide or plain(context.model), context.eps * SHARE
    steps, response = [], []
    for number in range(_PAIRS):
        with context.seeded(f"response {number}"):
            step = h * direction(torch.randn_like(images), context.budget.norm)
        there, back = (_margin(context, twin, images + sign * step, rows) for sign in (1.0, -1.0))
        steps.append(step)
        response.append((there - back) / 2.0)
    measured = torch.stack(response)
    least = _SEEN * _margin(context, twin, images, rows).abs().clamp_min(1e-3)
    silent = measured.abs().amax(dim=0) <= least
    frames = []
    for candidate in found:
        gradient = _gradient(context, candidate, images, rows)
        predicted = torch.stack([(gradient * step.double()).flatten(1).sum(1) for step in steps])
        size = measured.norm(dim=0) * predicted.norm(dim=0)
        agreement = (measured * predicted).sum(dim=0) / size.clamp_min(1e-300)
        agreement[silent] = torch.nan
        columns = {
            "sample": rows.sample.cpu().numpy(),
            "candidate": candidate.name,
            "agreement": agreement.cpu().numpy(),
        }
        frames.append(pd.DataFrame(columns))
    table: pd.DataFrame = pd.concat(frames, ignore_index=True)
    return table


def _gradient(context: CheckContext, candidate: Candidate, images: Tensor, rows: Rows) -> Tensor:
    """Of the margin; the same random numbers as in the measured passes."""
    source = candidate.margin or Gradient(plain(context.model), margin_loss, context.meter)
    with context.seeded("truth"):
        return -source(images, rows).gradient.double()


def _margin(context: CheckContext, twin: Twin, images: Tensor, rows: Rows) -> Tensor:
    context.meter.add(len(images))
    with context.seeded("truth"), torch.no_grad():
        return margin_of(twin(images).decides, rows)
