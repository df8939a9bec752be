"""The audited attack again, with other random numbers: how many samples chance alone would fool."""

from __future__ import annotations

import math
from collections.abc import Iterable

from torch import Tensor

from flatguard.checks.context import CheckContext, Rows
from flatguard.checks.evidence import ProbeEvidence
from flatguard.checks.search.attempts import Attempt, AttemptTable
from flatguard.errors import AttackError, OutOfMemory

_DEAREST = 10
"""An attack that costs more than this many searches is not repeated; the control replaces it."""

_MOST_REPEATS = 5


def repeat_attack(context: CheckContext, steps: int, batches: Iterable[Rows]) -> ProbeEvidence:
    """Run the audited attack again on the survivors, until it has spent as much as a twin.

    Cost: at least one audited attack on the survivors, or nothing where it costs more than
    `_DEAREST` · `steps` forward passes a sample.
    """
    each = _cost_of_attack(context)
    if is_dear(context, steps):
        return ProbeEvidence.missing(f"the attack costs {each:.0f} forwards a sample")
    repeats = min(_MOST_REPEATS, max(1, math.ceil(steps / max(1.0, each))))
    table = AttemptTable()
    attempt = Attempt("repeat", "repeat", lambda rows: _again(context, rows, repeats))
    try:
        for rows in batches:
            table.add(context, attempt, rows)
    except OutOfMemory:
        raise
    except AttackError as error:  # some attacks do not take smaller batches
        return ProbeEvidence.missing(str(error))
    return table.evidence({"ran": True, "repeats": repeats})


def cost_of_repeat(context: CheckContext, steps: int) -> float:
    """About how many sample-forwards `repeat_attack` takes."""
    each = _cost_of_attack(context)
    if is_dear(context, steps):
        return 0.0
    return len(context.survivors) * min(_MOST_REPEATS * each, max(each, steps))


def is_dear(context: CheckContext, steps: int) -> bool:
    """Whether the audited attack costs more than `_DEAREST` searches of so many steps."""
    return _cost_of_attack(context) > _DEAREST * steps


def _again(context: CheckContext, rows: Rows, repeats: int) -> tuple[Tensor, Tensor]:

    best = rows.images.clone()
    fooled = context.fools(best, rows) & False
    for number in range(repeats):
        left = (~fooled).nonzero()[:, 0]
        if not len(left):
            break
        here = rows[left]
        seed = context.seed(f"repeat {number}", int(rows.sample[0]))
        images, labels = here.images.contiguous(), here.labels
        attack = context.evaluation.attack
        found = attack.perturb(context.model, images, labels, seed).images
        context.meter.add(round(_cost_of_attack(context) * len(here)))
        new = context.fools(found.to(context.device), here)
        best[left[new]] = found[new].to(best)
        fooled[left] = new
    return best, fooled


def _cost_of_attack(context: CheckContext) -> float:
    """Forward passes that the audited attack took for each sample, on average."""
    forwards = sum(block.sample_forwards for block in context.run.blocks)
    return forwards / max(1, len(context.samples))
