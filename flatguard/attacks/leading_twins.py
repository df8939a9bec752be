"""The repaired twins of a model whose gradients lead further than its own.

A repaired twin decides as the model does, and passes a gradient through what hinders it
(`flatguard.twins.repairs`). An attack may follow that gradient, while the model itself says which
images fool it.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor

from flatguard.attacks.gradient_trust import beside, half_a_radius
from flatguard.attacks.survivors import Survivors
from flatguard.errors import ran_out_of_memory
from flatguard.geometry.budget import Budget
from flatguard.twins.outputs import Twin, plain
from flatguard.twins.repairs import Repair

_MOST = 2
"""So many twins are followed."""

_FURTHER = 0.025
"""A twin is followed if a step along its gradient takes this much more of the clean gap than a step
along the model's own, and half as much as the best one."""


def leading_twins(
    survivors: Survivors, images: Tensor, rows: Tensor, budget: Budget
) -> list[Repair]:
    """The twins to follow, the best first; none where no repair leads further.

    Args:
        survivors: counts the passes.
        images: clean, `(m, ...)`, of these rows.
        rows: the samples, `(m,)`.
        budget: with a radius.

    Cost: about 10 passes for each sample to find the repairs, and 3 for each of them.
    """
    here = beside(images, budget)

    def drop(twin: Twin) -> float:
        margin, slope = survivors.margin_and_slope(rows, here, twin)
        there = half_a_radius(here, slope, budget)
        fall = (margin - survivors.margins(rows, there, twin)) / survivors.scale[rows]
        return float(fall.clip(-1.0, 2.0).mean())

    usual, found = drop(plain(survivors.model)), survivors.repairs(rows)
    drops = [(_if_it_runs(drop, repair.twin), repair) for repair in found]
    best = max((each for each, _ in drops), default=0.0)
    least = max(usual + _FURTHER, 0.5 * best)
    ordered = sorted(drops, key=lambda pair: -pair[0])
    return [repair for each, repair in ordered if each >= least][:_MOST]


def _if_it_runs(drop: Callable[[Twin], float], twin: Twin) -> float:
    """A user's model may fail with a repaired gradient, as one that differentiates in its forward
    pass does; no such twin leads anywhere."""
    try:
        return drop(twin)
    except Exception as error:
        if ran_out_of_memory(error):
            raise
        return -math.inf
