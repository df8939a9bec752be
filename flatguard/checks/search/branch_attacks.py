"""Attacks on the branches of a switch; what fools the target itself counts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from flatguard.checks.context import CheckContext, Rows, evenly
from flatguard.checks.evidence import ProbeEvidence
from flatguard.checks.search.attempts import Attempt, AttemptTable
from flatguard.checks.search.branch_gradient import (
    BranchGradient,
    BranchLoss,
    all_wrong,
    choices,
    chosen_and_wrong,
    mean_wrong,
    one_wrong,
)
from flatguard.checks.search.candidates import by_search
from flatguard.checks.search.gradients import Gradient, cross_entropy
from flatguard.checks.search.projected_gradient import Search, search
from flatguard.checks.search.repeat import is_dear
from flatguard.geometry.ball import random_point
from flatguard.geometry.distance import within
from flatguard.switches.branches import LOOKED_AT, Branch, Frozen, Switch, find_switch

_ALONE = 4
"""So many branches are attacked each alone; all of them are in the joint losses."""

_STEPS_A_START = 30
_STEPS_ALONE = 20
_SHADE = 0.8


def switched(context: CheckContext, steps: int) -> np.ndarray:
    """The samples whose branches are attacked: none where there is no switch."""
    return context.survivors if _found(context).branches else context.survivors[:0]


def attack_switches(context: CheckContext, steps: int, batches: Iterable[Rows]) -> ProbeEvidence:
    """Find the switch of the target, and attack its branches on every survivor.

    Cost: two forward passes over at most `LOOKED_AT` images where there is no switch. With b
    branches at most `steps` · (4 · b + 16) passes a survivor and start.
    """
    table, frames, switch = AttemptTable(), [], _found(context)
    for rows in batches:
        frames.append(_attacked(context, switch, table, rows, steps))
    evidence = table.evidence({"branches": len(switch.branches), "gates": switch.gates})
    if frames:
        evidence.tables["choices"] = pd.concat(frames, ignore_index=True)
    return evidence


def cost_of_switches(context: CheckContext, steps: int) -> float:
    """About how many sample-forwards `attack_switches` takes where there is no switch."""
    return 2.0 * min(len(context.survivors), LOOKED_AT)


def _found(context: CheckContext) -> Switch:
    return context.once("switches", lambda: _looked_for(context))


def _looked_for(context: CheckContext) -> Switch:
    """The switch, looked for at clean images, random points, and ends of the audited path."""
    points = []
    with context.seeded("switches"):
        few = max(1, min(LOOKED_AT, context.batch_limit // 3))
        for rows in context.rows(evenly(context.survivors, few)):
            points.append(torch.cat([rows.images, _somewhere(context, rows), rows.adversarial]))
        if not points:
            return Switch()
        images = torch.cat(points)[: context.batch_limit]
        again = partial(context.seeded, "switch")
        switch = find_switch(context.model, images, _SHADE * images.roll(1, dims=0), again)
    context.meter.add((switch.runs + 2) * len(images))
    return switch


def _somewhere(context: CheckContext, rows: Rows) -> Tensor:
    return random_point(rows.images, context.eps, context.budget.norm)


def _attacked(
    context: CheckContext, switch: Switch, table: AttemptTable, rows: Rows, steps: int
) -> pd.DataFrame:
    """One attempt after the other on what is left; returns which branch is chosen where."""
    starts = 1 + steps // _STEPS_A_START
    fooled = torch.zeros(len(rows), dtype=torch.bool, device=rows.images.device)
    for name, source in _sources(context, switch):
        left = (~fooled).nonzero()[:, 0]
        if not len(left):
            break
        search = Search(steps, starts)
        table.add(context, Attempt(name, "switch", by_search(context, source, search)), rows[left])
        new = torch.from_numpy(table.frames[-1]["fooled"].to_numpy(bool).copy())
        fooled[left[new.to(left.device)]] = True
    frame = _choices(context, switch, rows)
    frame["found"] = _chosen_for_examples(context, switch, table, rows)
    return frame


def _sources(context: CheckContext, switch: Switch) -> Iterator[tuple[str, BranchGradient]]:
    alive = switch.alive

    def source(only: list[int], loss: BranchLoss) -> BranchGradient:
        return BranchGradient(switch, only, loss, context.meter)

    yield "all branches", source(alive, all_wrong)
    yield "mean of branches", source(alive, mean_wrong)
    for number in range(min(_ALONE, len(switch.branches))):
        if number in alive:
            yield f"branch {number + 1}", source([number], one_wrong(0))
        yield f"branch {number + 1} and its gate", source([number], chosen_and_wrong(0))


def _choices(context: CheckContext, switch: Switch, rows: Rows) -> pd.DataFrame:
    """Which branches decide at some points, and whether the audited attack fools one of them alone.

    `frozen` says so: the gates are forced to what the model chooses at one of these points.
    """
    with context.seeded(f"choices {int(rows.sample[0])}"):
        points = {
            "clean": rows.images, "random": _somewhere(context, rows), "audited": rows.adversarial,
        }  # fmt: skip
        chosen = {name: choices(switch, images, context.meter) for name, images in points.items()}
        met = torch.stack(list(chosen.values()))
        frozen = torch.zeros(len(rows), dtype=torch.bool, device=met.device)
        for number in switch.alive:
            left = ((met == number).any(dim=0) & ~frozen).nonzero()[:, 0]
            if len(left):
                frozen[left] = _is_fooled_alone(context, switch.branches[number], rows[left])
    frame: pd.DataFrame = pd.DataFrame(
        {
            "sample": rows.sample.cpu().numpy(),
            **{name: each.cpu().numpy() for name, each in chosen.items()},
            "frozen": frozen.cpu().numpy(),
        }
    )
    return frame


def _chosen_for_examples(
    context: CheckContext, switch: Switch, table: AttemptTable, rows: Rows
) -> list[int]:
    """The branch that decides at the kept example of each sample; -1 where there is none."""
    numbers = rows.sample.tolist()
    kept = [number for number in numbers if number in table.examples]
    if not kept:
        return [-1] * len(numbers)
    images = torch.stack([table.examples[number] for number in kept]).to(context.device)
    chosen = dict(zip(kept, choices(switch, images, context.meter).tolist(), strict=True))
    return [int(chosen.get(number, -1)) for number in numbers]


def _is_fooled_alone(context: CheckContext, branch: Branch, rows: Rows) -> Tensor:
    """Whether the audited attack fools this branch, `(n,)`; a plain search where it is dear."""
    if is_dear(context, _STEPS_ALONE):
        source = Gradient(branch.twin, cross_entropy, context.meter)
        found = search(context, source, rows, Search(_STEPS_ALONE, random_start=True)).images
    else:
        frozen, seed = Frozen(branch), context.seed("frozen", int(rows.sample[0]))
        attack, images = context.evaluation.attack, rows.images.contiguous()
        found = attack.perturb(frozen, images, rows.labels, seed).images.to(context.device)
        context.meter.add(frozen.rows)
    wrong = branch.twin(found).decides.argmax(dim=1) != rows.labels
    return within(found, rows.images, context.budget) & wrong
