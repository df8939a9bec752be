"""For a randomised target: the example that most draws get wrong.

A search that looks for any wrong draw stops beside the boundary, where half of the draws are wrong.
Here several searches end where they end, and many draws choose among their examples.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from flatguard.checks.context import CheckContext, Rows
from flatguard.checks.search.gradients import Gradient, margin_loss, margin_of_loss, tempered
from flatguard.checks.search.projected_gradient import MOMENTUM, step_length
from flatguard.geometry.ball import direction, project, random_point
from flatguard.geometry.distance import within
from flatguard.twins.outputs import Outputs, plain

STEPS, DRAWS, SHOWN = 30, 16, 100
_SURE = 0.9


@dataclass(frozen=True)
class Surest:
    """The best example of each row, `(n, ...)`, and the share of `SHOWN` draws that are wrong."""

    images: Tensor
    wrong: Tensor


def chance_of_wrong(outputs: Outputs, rows: Rows) -> Tensor:
    r"""A smooth count of wrong draws, $\sigma(-m / T)$, with the margin $m$ and temperature $T$.

    Averaged over draws it rises where more of them are wrong, not where the mean margin falls.
    """
    return torch.sigmoid(-margin_of_loss(outputs.loss.double(), rows) / rows.temperature)


def _climbed(context: CheckContext, source: Gradient, rows: Rows) -> Tensor:
    """Where a search from a random point ends. The best of noisy looks would be a lucky one."""
    eps, norm = context.eps, context.budget.norm
    images = random_point(rows.images, eps, norm)
    velocity = torch.zeros_like(images)
    for step in range(STEPS):
        velocity = MOMENTUM * velocity + direction(source(images, rows).gradient, norm)
        length = eps * step_length(step, STEPS)
        images = project(images + length * direction(velocity, norm), rows.images, eps, norm)
    return images


_LOSSES = (tempered, chance_of_wrong, margin_loss)


def surest(context: CheckContext, rows: Rows, restarts: int) -> Surest:
    """Search several times from random points, along one loss after the other.

    A row leaves once nine in ten draws are wrong.

    Cost: restarts · (`STEPS` · `DRAWS` gradients and `SHOWN` forward passes) a row at most.
    """
    best = rows.images.clone()
    wrong = torch.zeros(len(rows), dtype=torch.float64, device=best.device)
    for restart in range(restarts):
        left = (wrong < _SURE).nonzero()[:, 0]
        if not len(left):
            break
        loss, here = _LOSSES[restart % len(_LOSSES)], rows[left]
        source = Gradient(plain(context.model), loss, context.meter, draws=DRAWS)
        images = _climbed(context, source, here)
        share = context.share_wrong(images, here.labels, SHOWN)
        share = share * within(images, here.images, context.budget)
        better = share > wrong[left]
        best[left[better]], wrong[left[better]] = images[better], share[better]
    return Surest(best, wrong)
