"""Examples made on other models, shown to the target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from flatguard.checks.gathering.attempts import Attempt, Log, make
from flatguard.checks.gathering.lab import TARGET_GAP, Found, Lab, Rows
from flatguard.checks.gathering.search import direction, project
from flatguard.checks.gathering.sights import Gradient, plain, tempered
from flatguard.errors import ran_out_of_memory
from flatguard.geometry.decision import margin
from flatguard.targets import Target

STEPS = 10
KNOWS = 0.5
"""A surrogate that is right about less than this share of the images knows other classes."""


def transfer(lab: Lab, surrogates: Sequence[Target]) -> Found:
    """Attack each surrogate, and show the target what came of it.

    Cost: `STEPS` + 1 passes of each surrogate and one of the target, for each survivor.
    """
    log, refused = Log(), {}
    for surrogate in surrogates:
        share = _agreement(lab, surrogate)
        if share < KNOWS:
            refused[surrogate.name] = f"right about only {share:.0%} of the clean images"
            continue
        for rows in lab.rows(lab.survivors):
            run = partial(_transfer, lab, surrogate)
            make(lab, log, Attempt(f"from {surrogate.name}", "surrogate", run), rows)
            lab.said_done(len(rows))
    return log.found({"surrogates": [s.name for s in surrogates], "refused": refused})


def _agreement(lab: Lab, surrogate: Target) -> float:
    right, count = 0, 0
    for rows in lab.rows(lab.spread(lab.survivors, 16)):
        lab.meter.add(len(rows))
        try:
            with torch.no_grad():
                logits = surrogate.model(rows.images)
        except (RuntimeError, ValueError) as error:
            if ran_out_of_memory(error):
                raise
            return 0.0
        if logits.shape[1] != lab.context.num_classes:
            return 0.0
        right += int((logits.argmax(dim=1) == rows.labels).sum())
        count += len(rows)
    return right / count if count else 0.0


def _transfer(lab: Lab, surrogate: Target, rows: Rows) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        gap = margin(surrogate.model(rows.images), rows.labels).clamp_min(1.0)
    theirs = replace(rows, temperature=gap / TARGET_GAP)
    sight = Gradient(plain(surrogate.model), tempered, lab.meter)
    images, norm = rows.images, lab.budget.norm
    for step in range(STEPS):
        length = lab.eps * (0.5 if step < STEPS // 2 else 0.1)
        view = sight(images, theirs)
        moved = images + length * direction(view.gradient, norm)
        images = project(moved, rows.images, lab.eps, norm)
    return images, lab.fooled(images, rows)
