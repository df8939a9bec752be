"""What the figures over many checkpoints share: runs to claims, and how a claim is judged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from flatguard.runs.run import Run
from flatguard.studies.claim import Claim, agrees_if, not_measured
from flatguard.studies.study import Outcome, Subject
from flatguard.studies.stutz.checkpoint import Checkpoint, checkpoint_of
from flatguard.studies.stutz.correlation import FEWEST, Association, Mean
from flatguard.studies.stutz.measure import Plan, measured

KEPT = Path("reports") / "robust-flatness"
"""Where models that are given without runs are measured, under the paper's protocol."""

POSITIVE = "the whole 95% interval lies above 0"
FEW = f"it takes at least {FEWEST} training runs that were measured for it"


def study_of(
    judge: Callable[[Sequence[Checkpoint]], Sequence[Claim]],
) -> Callable[[Subject], Outcome]:
    """A study's `run`: its checkpoints, the claims about them, and their rows as its figure."""

    def run(subject: Subject) -> Outcome:
        found = [checkpoint_of(run) for run in _runs(subject)]
        figures: dict[str, Any] = {"checkpoints": [c.model_dump() for c in found]}
        return Outcome(tuple(judge(found)), figures)

    return run


def _runs(subject: Subject) -> Sequence[Run]:
    """The runs that were given, or the models' own, measured now."""
    if subject.runs:
        return subject.runs
    found = []
    for context in subject.jobs:
        request = context.request.model_copy(update={"n_examples": subject.count})
        found.append(
            measured(replace(context, request=request), KEPT, Plan(), subject.progress, ())
        )
    return found


def correlated(
    name: str, claim: str, paper: str, found: Association | None, note: str = ""
) -> Claim:
    """A claim that two things rise together across checkpoints."""
    if found is None:
        return not_measured(name, claim, paper, POSITIVE, FEW)
    counted = f"ρ over {found.runs} training runs; n counts checkpoints."
    value = Mean(found.rho, found.interval, found.n)
    return _above_zero(name, claim, paper, value, f"{counted} {note}")


def positive(name: str, claim: str, paper: str, found: Mean | None, note: str = "") -> Claim:
    """A claim that something is above 0 on the average over training runs."""
    if found is None:
        return not_measured(name, claim, paper, POSITIVE, FEW)
    return _above_zero(name, claim, paper, found, f"n counts training runs. {note}")


def _above_zero(name: str, claim: str, paper: str, found: Mean, note: str) -> Claim:
    return Claim(
        name=name,
        claim=claim,
        paper=paper,
        ours=found.value,
        interval=found.interval,
        samples=found.n,
        rule=POSITIVE,
        verdict=agrees_if(found.interval[0] > 0),
        note=note.strip(),
    )


def finite(rows: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """The rows that were measured in all of these columns."""
    known: pd.DataFrame = rows.dropna(subset=list(columns))
    return known
