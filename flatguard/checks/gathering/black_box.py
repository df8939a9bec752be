"""Searches that ask for no gradient: where they find more, the gradient hid something."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from flatguard.attacks import build_attack
from flatguard.checks.gathering.attempts import Attempt, Log, make
from flatguard.checks.gathering.lab import Found, Lab, Meter, Rows
from flatguard.checks.gathering.search import direction, project

NOISE_DRAWS = 8


def add_noise(lab: Lab) -> Found:
    """Random points on the ball's edge.

    Cost: `NOISE_DRAWS` forward passes for each survivor, fewer for what falls early.
    """
    log = Log()
    for rows in lab.rows(lab.survivors):
        make(lab, log, Attempt("noise", "noise", partial(_noise, lab)), rows)
        lab.said_done(len(rows))
    return log.found({"draws": NOISE_DRAWS})


def ask_without_gradient(lab: Lab, queries: int) -> Found:
    """The Square attack (Andriushchenko et al. 2020) with a budget of queries.

    Cost: `queries` + 1 forward passes for each survivor, fewer for what falls early.
    """
    log = Log()
    run = partial(_square, lab, queries)
    for rows in lab.rows(lab.survivors):
        make(lab, log, Attempt(f"square, {queries} queries", "black-box", run), rows)
        lab.said_done(len(rows))
    return log.found({"queries": queries})


def _noise(lab: Lab, rows: Rows) -> tuple[Tensor, Tensor]:
    best = rows.images.clone()
    fell = torch.zeros(len(rows), dtype=torch.bool, device=best.device)
    for _ in range(NOISE_DRAWS):
        if bool(fell.all()):
            break
        step = lab.eps * direction(torch.randn_like(best), lab.budget.norm)
        images = project(rows.images + step, rows.images, lab.eps, lab.budget.norm)
        fooled = ~fell
        fooled[fooled.clone()] = lab.fooled(images[~fell], rows[~fell])
        best[fooled] = images[fooled]
        fell |= fooled
    return best, fell


def _square(lab: Lab, queries: int, rows: Rows) -> tuple[Tensor, Tensor]:
    args = {"n_queries": queries}
    attack = build_attack("square", lab.budget, lab.context.num_classes, args)
    counter = lab.model.register_forward_pre_hook(_counting(lab.meter))
    try:
        seed = lab.seed("square", int(rows.sample[0]))
        images, labels = rows.images.contiguous(), rows.labels
        found = attack.perturb(lab.model, images, labels, seed).images
    finally:
        counter.remove()
    return found, lab.fooled(found.to(lab.device), rows)


def _counting(meter: Meter) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        meter.add(len(inputs[0]))

    return hook
