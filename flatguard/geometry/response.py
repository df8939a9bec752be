"""How a function answers to small steps, beside what its gradient predicts."""

from __future__ import annotations

import torch
from torch import Tensor

LONGER, SHORTER, FARTHER = 1 / 16, 1 / 256, 1.0
"""Steps as shares of the radius. Roundings act over the longer ones; every smooth network is
straight over the shorter ones. A noise that only they feel does not mislead an attack that goes a
whole radius."""

CURVED = 0.75
"""Over the longer steps, curvature alone leaves this much correlation; roundings leave 0.05 to
0.7."""

_SEEN = 1e-6
"""A response that is smaller than this share of the value is rounding of float32."""


def half_differences(there: Tensor, back: Tensor) -> Tensor:
    """Half the difference of the values at both ends of each step, `(steps, n)`; NaN: none.

    Args:
        there: values after each step, `(steps, n)`, in units in which 1 is no small value.
        back: the same after the opposite steps.
    """
    found = (there - back) / 2.0
    least = _SEEN * (there + back).abs().mean(dim=0).clamp_min(1e-3)
    return torch.where(found.abs().amax(dim=0) <= least, torch.nan, found)


def predictions(slope: Tensor, steps: list[Tensor]) -> Tensor:
    """What a gradient predicts for each step, `(steps, n)`, in float64."""
    return torch.stack([(slope.double() * step.double()).flatten(1).sum(1) for step in steps])


def correlation(measured: Tensor, predicted: Tensor) -> Tensor:
    """Over the steps, of responses with predictions, `(n,)`; NaN where there is no response."""
    size = measured.norm(dim=0) * predicted.norm(dim=0)
    found: Tensor = (measured * predicted).sum(dim=0) / size.clamp_min(1e-300)
    return found
