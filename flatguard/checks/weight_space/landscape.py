"""The loss along random directions in weight space, normalised filter by filter.

Stutz et al. (2021), Figure 4; the normalisation of Li et al. (2018). The attack runs anew
at every point. Height and shape do not depend on how layers are scaled; Eq. (1) is the better
measure of how flat a minimum is (`weight_flatness`).
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from flatguard.checks.weight_space.flatness import Losses, Scene, losses_at
from flatguard.environment.torch_state import own_state
from flatguard.geometry.weights import Movable, filter_normalised

DIRECTIONS = 10
"""As many as Figure 4 shows."""

POINTS = tuple(round(-1.0 + 0.2 * index, 1) for index in range(11))
"""From one filter's length back to one ahead; 0 is the model itself."""


@own_state()
def landscape(
    model: nn.Module,
    scene: Scene,
    *,
    directions: int = DIRECTIONS,
    points: Sequence[float] = POINTS,
) -> Losses:
    """Every sample's clean and robust loss at w + t·d; `direction` and `t` say where.

    Cost: directions · (points without 0) + 1 attacks on all samples.
    """
    movable = Movable(model)
    here = losses_at(movable, {}, scene)
    parts = []
    for direction in range(directions):
        drawn = filter_normalised(movable.weights, scene.generator("landscape", direction))
        for t in points:
            step = {name: t * nu for name, nu in drawn.items()}
            found = here if t == 0 else losses_at(movable, step, scene)
            parts.append(found.called(direction=direction, t=t))
    return Losses.joined(parts)
