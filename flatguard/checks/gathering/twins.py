"""Attacks on twins of the target: they decide as it does, so what fools them fools it.

Every twin gets the same search, and so does the target itself: the `control`, which takes the
gradient of cross-entropy as the audited attacks do, from a random start. What falls to a twin and
not to the control fell because of the twin.
"""

from __future__ import annotations

import pandas as pd
from torch import Tensor

from flatguard.checks.gathering.attempts import Attempt, Family, Log, Try, make
from flatguard.checks.gathering.lab import Found, Lab, Rows
from flatguard.checks.gathering.repairs import double
from flatguard.checks.gathering.search import Search, search
from flatguard.checks.gathering.sights import (
    Gradient,
    Sight,
    cross_entropy,
    margin_loss,
    plain,
    tempered,
)
from flatguard.checks.gathering.truth import GOOD_ENOUGH, Candidate, candidates

WORTH_TRYING = 0.05
"""A repaired direction is tried where its step lowers the margin by so much more than others."""

REPAIRS_TRIED = 3

FAMILIES: dict[str, Family] = {
    "saturating": "saturating", "smoothed": "smoothed", "estimated": "estimated",
}  # fmt: skip


def attack_twins(lab: Lab, truth: Found, steps: int) -> Found:
    """Attack the target and its twins, each sample that survived with every one of them.

    Args:
        lab: the run and its target.
        truth: what `truth.look_at_gradients` saw: which repaired directions are worth trying.
        steps: gradients a search.

    Cost: for each survivor at most `steps` forward and backward passes a twin, of which there are
    four and, where gradients are bad, up to six more; eight times that for randomised targets.
    """
    log = Log()
    chosen = worth_trying(truth)
    for rows in lab.rows(lab.survivors):
        for attempt in _plain_attempts(lab, rows, steps):
            make(lab, log, attempt, rows)
        for candidate in candidates(lab, rows) if chosen else []:
            if candidate.name in chosen:
                for attempt in _repaired_attempts(lab, candidate, steps):
                    make(lab, log, attempt, rows)
        lab.said_done(len(rows))
    return log.found({"steps": steps, "repairs": list(chosen)})


def _plain_attempts(lab: Lab, rows: Rows, steps: int) -> list[Attempt]:
    target, meter, draws = plain(lab.model), lab.meter, lab.draws
    once, random = Search(steps), Search(steps, random_start=True)
    control = Gradient(target, cross_entropy, meter)
    cooled = Gradient(target, tempered, meter, draws=draws)
    margin = Gradient(target, margin_loss, meter, draws=draws)
    found = [
        Attempt("control", "control", by_search(lab, control, random)),
        Attempt("temperature", "temperature", by_search(lab, cooled, once)),
        Attempt("margin", "loss", by_search(lab, margin, once)),
    ]
    if lab.randomised:
        averaged = Gradient(target, cross_entropy, meter, draws=draws)
        found.append(Attempt("eot", "eot", by_search(lab, averaged, random)))
    wide = double(lab.model, rows.images[:1])
    if wide is not None:
        precise = Gradient(wide, cross_entropy, meter, draws=draws)
        found.append(Attempt("float64", "float64", by_search(lab, precise, random)))
    return found


def _repaired_attempts(lab: Lab, candidate: Candidate, steps: int) -> list[Attempt]:
    """One along each loss: what a stage was repaired with may be fit for one of them only."""
    kind, once = FAMILIES.get(candidate.name, "repair"), Search(steps)
    found = [Attempt(candidate.name, kind, by_search(lab, candidate.sight, once))]
    if candidate.margin is not None:
        run = by_search(lab, candidate.margin, once)
        found.append(Attempt(f"{candidate.name}, margin", kind, run))
    return found


def by_search(lab: Lab, sight: Sight, how: Search) -> Try:
    """An attempt by projected gradients along a sight."""

    def run(rows: Rows) -> tuple[Tensor, Tensor]:
        found = search(lab, sight, rows, how)
        return found.images, found.fell

    return run


def worth_trying(truth: Found) -> list[str]:
    """The repaired directions that lead further than the raw and tempered ones, best first."""
    table = truth.tables.get("drops")
    if table is None:
        return []
    mean = usefulness(table)
    usual = max(mean.get("raw", 0.0), mean.get("tempered", 0.0), 0.0)
    if usual >= GOOD_ENOUGH:
        return []
    least = max(usual + WORTH_TRYING, 0.5 * float(mean.max()))
    better = mean[mean > least].sort_values(ascending=False)
    return [name for name in better.index if name not in ("raw", "tempered")][:REPAIRS_TRIED]


def usefulness(drops: pd.DataFrame) -> pd.Series:
    """The mean drop of each candidate; one huge drop counts no more than reaching the boundary."""
    clipped = drops["drop"].clip(-2.0, 4.0)
    mean: pd.Series = clipped.groupby(drops["candidate"]).mean()
    return mean


def best_sight(lab: Lab, rows: Rows, truth: Found) -> Sight:
    """The direction that led furthest, for the attempts with more budget; not an estimated one."""
    better = [name for name in worth_trying(truth) if name != "estimated"]
    wanted = better[0] if better else "tempered"
    named = {candidate.name: candidate.sight for candidate in candidates(lab, rows)}
    return named.get(wanted, named["tempered"])
