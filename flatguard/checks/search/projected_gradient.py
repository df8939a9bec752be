"""Projected gradient search. Every twin gets the same search, so that only the twin differs."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from flatguard.checks.context import CheckContext, Rows
from flatguard.checks.search.gradients import GradientSource
from flatguard.geometry.ball import direction, project, random_point

MOMENTUM = 0.75
_FIRST_STEP, _LAST_STEP = 0.5, 0.02
"""Step lengths as shares of the radius; between them they decrease along half a cosine."""


@dataclass(frozen=True)
class Search:
    """How long a search is.

    Attributes:
        steps: gradients that it takes.
        restarts: number of starts; every start after the first is at a random point.
        random_start: whether the first start is a random point of the ball instead of the image.
        eps: the radius; None is the run's.
    """

    steps: int
    restarts: int = 1
    random_start: bool = False
    eps: float | None = None


@dataclass(frozen=True)
class _SearchResult:
    """The best images of a search, `(n, ...)`, and whether they fool the target, `(n,)`."""

    images: Tensor
    fooled: Tensor


def search(
    context: CheckContext, source: GradientSource, rows: Rows, settings: Search
) -> _SearchResult:
    """Search admissible images that fool the twin, and verify them on the target itself.

    Projected gradient ascent with momentum. A sample that fools the twin is verified; if it fools
    the target too, it leaves the search.

    Cost: at most restarts · steps gradients and one forward pass more for each sample.
    """
    eps = settings.eps or context.eps
    norm = context.budget.norm
    best = rows.images.clone()
    fooled = torch.zeros(len(rows), dtype=torch.bool, device=best.device)
    for restart in range(settings.restarts):
        left = (~fooled).nonzero()[:, 0]
        if not len(left):
            break
        start = rows[left].images
        if settings.random_start or restart:
            start = random_point(start, eps, norm)
        state = _State(best, fooled, left, start)
        _search_once(context, source, rows, settings.steps, eps, state)
    return _SearchResult(best, fooled)


@dataclass
class _State:
    """One restart. `best` and `fooled` are of all samples, `active` and `images` of those left."""

    best: Tensor
    fooled: Tensor
    active: Tensor
    images: Tensor


def _search_once(
    context: CheckContext,
    source: GradientSource,
    rows: Rows,
    steps: int,
    eps: float,
    state: _State,
) -> None:
    norm, velocity = context.budget.norm, torch.zeros_like(state.images)
    nearest = torch.full((len(state.active),), math.inf, dtype=torch.float64, device=context.device)
    for step in range(steps + 1):
        here = rows[state.active]
        view = source(state.images, here)
        nearer = view.margin < nearest
        nearest = torch.where(nearer, view.margin, nearest)
        # A mask as the index would make the host wait for the device.
        is_nearer = nearer.view(-1, *[1] * (state.images.ndim - 1))
        state.best[state.active] = torch.where(is_nearer, state.images, state.best[state.active])
        verified = _verified(context, rows, state, view.fooled, eps)
        if step == steps:
            return
        moved, gradient = state.images, view.gradient
        if verified is not None:
            left = (~verified).nonzero()[:, 0]
            if not len(left):
                return
            state.active, nearest, velocity = state.active[left], nearest[left], velocity[left]
            moved, gradient = moved[left], gradient[left]
        velocity = MOMENTUM * velocity + direction(gradient, norm)
        length = eps * step_length(step, steps)
        clean = rows.images[state.active]
        state.images = project(moved + length * direction(velocity, norm), clean, eps, norm)


def step_length(step: int, steps: int) -> float:
    """As a share of the radius: it falls along half a cosine."""
    cosine = 0.5 * (1.0 + math.cos(math.pi * step / max(1, steps)))
    return _LAST_STEP + (_FIRST_STEP - _LAST_STEP) * cosine


def _verified(
    context: CheckContext, rows: Rows, state: _State, candidates: Tensor, eps: float
) -> Tensor | None:
    """Which active samples fool the target now; None without candidates. Their image is kept."""
    found = candidates.nonzero()[:, 0]
    if not len(found):
        return None
    verified, numbers = torch.zeros_like(candidates), state.active[found]
    verified[found] = context.fools(state.images[found], rows[numbers], eps)
    sure = state.active[verified]
    state.best[sure] = state.images[verified]
    state.fooled[sure] = True
    return verified
