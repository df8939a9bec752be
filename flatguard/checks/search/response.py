"""How well a gradient predicts what small random steps do to the margin.

A gradient may be right along its own direction and still miss a part of the computation, such as
features that pass a rounding. Then the margin answers to random steps in a way that the gradient
does not predict.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from flatguard.checks.context import CheckContext, Rows
from flatguard.checks.gradient_evidence import is_partly_missing, median_agreement
from flatguard.checks.search.candidates import Candidate
from flatguard.checks.search.gradients import Gradient, margin_loss, margin_of
from flatguard.geometry.ball import direction
from flatguard.geometry.response import (
    FARTHER,
    LONGER,
    SHORTER,
    correlation,
    half_differences,
    predictions,
)
from flatguard.twins.outputs import Twin, plain

SHARES = {"agreement": LONGER, "closer": SHORTER}
"""Of the radius, by their columns."""

_PAIRS = 10


def responses(
    context: CheckContext, rows: Rows, images: Tensor, wide: Twin | None, found: Sequence[Candidate]
) -> pd.DataFrame:
    r"""The correlation over random directions $s$ of response and prediction, for each candidate.

    The response is $[m(x + hs) - m(x - hs)] / 2$, the prediction $h \langle \nabla m, s \rangle$;
    $m$ is the margin and $h$ one of the `SHARES` of the radius. NaN where nothing responds. Where
    the target's own gradient explains too little, whole radii are measured too (`farther`).

    Args:
        context: of the check.
        rows: the samples.
        images: the points, `(n, ...)`.
        wide: the target in float64; None where it has no such twin.
        found: directions whose margin is differentiated; `raw` is the target's own.

    Cost: 4 · `_PAIRS` forward passes, half as many again where whole radii are measured, and one
    forward and backward pass a candidate.
    """
    twin = wide or plain(context.model)
    steps = [_direction(context, images, number) for number in range(_PAIRS)]
    slopes = {one.name: _gradient(context, one, images, rows) for one in found}
    predicted = {name: predictions(slope, steps) for name, slope in slopes.items()}
    sample = np.tile(rows.sample.cpu().numpy(), len(found))
    names = np.repeat(list(predicted), len(rows))
    table = pd.DataFrame({"sample": sample, "candidate": names})

    def add(name: str, share: float) -> None:
        size = share * context.eps
        measured = _responses(context, twin, images, rows, [size * step for step in steps])
        columns = [correlation(measured, prediction) for prediction in predicted.values()]
        table[name] = torch.cat(columns).cpu().numpy()

    for name, share in SHARES.items():
        add(name, share)
    table["farther"] = np.nan
    if is_partly_missing(median_agreement(table)):
        add("farther", FARTHER)
    return table


def _direction(context: CheckContext, images: Tensor, number: int) -> Tensor:
    with context.seeded(f"response {number}"):
        return direction(torch.randn_like(images), context.budget.norm)


def _responses(
    context: CheckContext, twin: Twin, images: Tensor, rows: Rows, steps: list[Tensor]
) -> Tensor:
    """Half the difference of the margins at both ends of each step, `(steps, n)`; NaN: none."""
    there = torch.stack([_margin(context, twin, images + step, rows) for step in steps])
    back = torch.stack([_margin(context, twin, images - step, rows) for step in steps])
    return half_differences(there, back)


def _gradient(context: CheckContext, candidate: Candidate, images: Tensor, rows: Rows) -> Tensor:
    """Of the margin; the same random numbers as in the measured passes."""
    source = candidate.margin or Gradient(plain(context.model), margin_loss, context.meter)
    with context.seeded("truth"):
        return -source(images, rows).gradient.double()


def _margin(context: CheckContext, twin: Twin, images: Tensor, rows: Rows) -> Tensor:
    context.meter.add(len(images))
    with context.seeded("truth"), torch.no_grad():
        return margin_of(twin(images).decides, rows)
