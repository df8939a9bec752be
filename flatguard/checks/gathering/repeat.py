"""The audited attack once more, from other random numbers: what chance alone would find."""

from __future__ import annotations

import math

from torch import Tensor

from flatguard.checks.gathering.attempts import Attempt, Log, make
from flatguard.checks.gathering.lab import Found, Lab, Rows
from flatguard.errors import AttackError, OutOfMemory

DEAREST = 10
"""An attack dearer than so many times a search is not repeated; the control stands in."""

MOST_REPEATS = 5


def repeat_attack(lab: Lab, steps: int) -> Found:
    """Run the audited attack again on the survivors, until it has had what a twin gets.

    Cost: at least one audited attack on the survivors, or nothing where it costs more than
    `DEAREST` · `steps` forward passes a sample.
    """
    each = price_of_attack(lab)
    if each > DEAREST * steps:
        return Found({"ran": False, "reason": f"the attack costs {each:.0f} forwards a sample"})
    repeats = min(MOST_REPEATS, max(1, math.ceil(steps / max(1.0, each))))
    log = Log()
    try:
        for rows in lab.rows(lab.survivors):
            make(lab, log, Attempt("repeat", "repeat", lambda r: _again(lab, r, repeats)), rows)
            lab.said_done(len(rows))
    except OutOfMemory:
        raise
    except AttackError as error:  # some attacks do not take the smaller batches
        return Found({"ran": False, "reason": str(error)})
    return log.found({"ran": True, "repeats": repeats})


def _again(lab: Lab, rows: Rows, repeats: int) -> tuple[Tensor, Tensor]:
    best = rows.images.clone()
    fell = lab.fooled(best, rows) & False
    for number in range(repeats):
        left = (~fell).nonzero()[:, 0]
        if not len(left):
            break
        here = rows[left]
        seed = lab.seed(f"repeat {number}", int(rows.sample[0]))
        images, labels = here.images.contiguous(), here.labels
        found = lab.context.attack.perturb(lab.model, images, labels, seed).images
        lab.meter.add(round(price_of_attack(lab) * len(here)))
        fooled = lab.fooled(found.to(lab.device), here)
        best[left[fooled]] = found[fooled].to(best)
        fell[left] = fooled
    return best, fell


def price_of_attack(lab: Lab) -> float:
    """Forward passes that the audited attack took for each sample, on the average."""
    forwards = sum(block.sample_forwards for block in lab.run.blocks)
    return forwards / max(1, len(lab.samples))
