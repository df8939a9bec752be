"""One projected gradient search, the same for every twin, so that only the twin differs."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from flatguard.checks.gathering.lab import Lab, Rows
from flatguard.checks.gathering.sights import Sight
from flatguard.geometry.budget import Norm

MOMENTUM = 0.75
FIRST_STEP, LAST_STEP = 0.5, 0.02
"""Step lengths as shares of the radius; between them they fall along half a cosine."""

L1_SHARE = 0.02
"""A step in L1 changes this share of the values: the steepest ones."""

SEARCHED: tuple[Norm, ...] = ("Linf", "L2", "L1")


@dataclass(frozen=True)
class Search:
    """How long a search is.

    Attributes:
        steps: gradients that it takes.
        restarts: how often it begins again, from another random point.
        random_start: whether it begins at a random point of the ball; at the image otherwise.
        eps: the radius, if it is not the run's.
    """

    steps: int
    restarts: int = 1
    random_start: bool = False
    eps: float | None = None


@dataclass(frozen=True)
class Searched:
    """The best images of a search, `(n, ...)`, and whether they fool the target, `(n,)`."""

    images: Tensor
    fell: Tensor


def search(lab: Lab, sight: Sight, rows: Rows, how: Search) -> Searched:
    """Look for admissible images that fool the sight, and verify them on the target itself.

    Projected gradient ascent with momentum; a sample that fools the sight is verified and, if
    the target is fooled too, leaves the search.

    Cost: at most restarts · steps looks and one forward pass more for each sample.
    """
    eps = how.eps or lab.eps
    norm = lab.budget.norm
    best = rows.images.clone()
    fell = torch.zeros(len(rows), dtype=torch.bool, device=best.device)
    for restart in range(how.restarts):
        left = (~fell).nonzero()[:, 0]
        if not len(left):
            break
        begin = rows[left].images
        if how.random_start or restart:
            begin = project(begin + random_step(begin, eps, norm), begin, eps, norm)
        _one(lab, sight, rows, how.steps, eps, Progress(best, fell, left, begin))
    return Searched(best, fell)


@dataclass
class Progress:
    """One restart on its way: `best` and `fell` are all samples', the rest is the active ones'."""

    best: Tensor
    fell: Tensor
    active: Tensor
    images: Tensor


def _one(lab: Lab, sight: Sight, rows: Rows, steps: int, eps: float, state: Progress) -> None:
    norm, velocity = lab.budget.norm, torch.zeros_like(state.images)
    nearest = torch.full((len(state.active),), math.inf, dtype=torch.float64, device=lab.device)
    for step in range(steps + 1):
        here = rows[state.active]
        view = sight(state.images, here)
        nearer = view.margin < nearest
        nearest = torch.where(nearer, view.margin, nearest)
        state.best[state.active[nearer]] = state.images[nearer]
        left = ~_verified(lab, rows, state, view.fooled, eps)
        if not bool(left.any()) or step == steps:
            return
        state.active, nearest, velocity = state.active[left], nearest[left], velocity[left]
        moved, gradient = state.images[left], view.gradient[left]
        velocity = MOMENTUM * velocity + direction(gradient, norm)
        length = eps * (LAST_STEP + (FIRST_STEP - LAST_STEP) * _falling(step, steps))
        clean = rows.images[state.active]
        state.images = project(moved + length * direction(velocity, norm), clean, eps, norm)


def _falling(step: int, steps: int) -> float:
    return 0.5 * (1.0 + math.cos(math.pi * step / max(1, steps)))


def _verified(lab: Lab, rows: Rows, state: Progress, fooled: Tensor, eps: float) -> Tensor:
    """Which active samples the target is fooled on now; they keep the image that did it."""
    verified = torch.zeros_like(fooled)
    found = fooled.nonzero()[:, 0]
    if len(found):
        numbers = state.active[found]
        verified[found] = lab.fooled(state.images[found], rows[numbers], eps)
        sure = state.active[verified]
        state.best[sure] = state.images[verified]
        state.fell[sure] = True
    return verified


def direction(gradient: Tensor, norm: Norm) -> Tensor:
    """The steepest direction of length 1 in this norm; 0 where the gradient is 0."""
    if norm == "Linf":
        return gradient.sign()
    flat = gradient.flatten(1)
    if norm == "L1":
        kept = max(1, round(L1_SHARE * flat.shape[1]))
        threshold = flat.abs().topk(kept, dim=1).values[:, -1:]
        flat = flat.sign() * (flat.abs() >= threshold) * (flat != 0)
        return (flat / flat.abs().sum(dim=1, keepdim=True).clamp_min(1.0)).view_as(gradient)
    largest = flat.abs().amax(dim=1, keepdim=True)
    flat = flat / largest.clamp_min(torch.finfo(flat.dtype).tiny)  # its square may underflow
    size = torch.linalg.vector_norm(flat, dim=1, keepdim=True)
    unit: Tensor = flat / size.clamp_min(1e-30)
    return unit.view_as(gradient)


def project(images: Tensor, clean: Tensor, eps: float, norm: Norm) -> Tensor:
    """The nearest point of the ball around the clean image, then of the box [0, 1]."""
    delta = (images - clean).flatten(1)
    if norm == "Linf":
        delta = delta.clamp(-eps, eps)
    elif norm == "L2":
        size = torch.linalg.vector_norm(delta, dim=1, keepdim=True)
        delta = delta * (eps / size.clamp_min(eps))
    else:
        delta = _onto_l1(delta, eps)
    # Towards the box is towards the clean image in every value, so the ball is not left.
    return (clean + delta.view_as(clean)).clamp(0, 1)


def _onto_l1(delta: Tensor, eps: float) -> Tensor:
    """Duchi et al. (2008): soft thresholding at the level that leaves the sum at eps."""
    size = delta.abs()
    ordered = size.sort(dim=1, descending=True).values
    above = (ordered.cumsum(dim=1) - eps) / torch.arange(
        1, delta.shape[1] + 1, device=delta.device, dtype=delta.dtype
    )
    count = (ordered > above).sum(dim=1, keepdim=True).clamp_min(1)
    level = above.gather(1, count - 1).clamp_min(0.0)
    shrunk = delta.sign() * (size - level).clamp_min(0.0)
    return torch.where(size.sum(dim=1, keepdim=True) > eps, shrunk, delta)


def random_step(images: Tensor, eps: float, norm: Norm) -> Tensor:
    """A random step: uniform in the Linf ball; of a random length in a random direction else."""
    if norm == "Linf":
        return (torch.rand_like(images) * 2.0 - 1.0) * eps
    share = torch.rand(len(images), *[1] * (images.ndim - 1), device=images.device)
    return eps * share * direction(torch.randn_like(images), norm)
