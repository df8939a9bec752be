"""Figures 1, 2, 5, 6, 7 and Table 1: claims over the checkpoints of training runs.

What each claim compares is in `claims.yaml`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from flatguard.runs.run import Run
from flatguard.studies.claim import Claim
from flatguard.studies.statement import Statement, read_data
from flatguard.studies.study import Outcome, Subject
from flatguard.studies.stutz.checkpoint import Checkpoint, checkpoint_of
from flatguard.studies.stutz.correlation import (
    FEWEST,
    Association,
    Mean,
    association,
    mean_difference,
    mean_over_runs,
)
from flatguard.studies.stutz.measure import Plan, measure_checkpoint
from flatguard.studies.stutz.table import (
    by_run,
    chosen,
    frame,
    last_epochs,
    method_of,
    table,
    variant_of,
)

_KEPT = Path("reports") / "robust-flatness"
"""The folder for models that are given without runs; they are measured by the paper's protocol."""

_GOOD, _POOR = 0.3, 0.7
"""The quantiles of robust error at which Table 1 is split."""


class RunStatement(Statement):
    """A claim over training runs: something is above 0, by the whole interval.

    Attributes:
        correlates: two columns of the checkpoints, whose rank correlation is judged.
        given: a column that is held fixed: the partial correlation.
        over: which checkpoints are correlated: the `last` of each run, `all`, the `late` ones,
            from the epoch that early stopping would keep on, or the last ones ranked
            `within-methods`.
        rises, falls: a column whose mean change is judged, from the epoch that early stopping
            would keep to the last one.
    """

    rule: str = "the whole 95% interval lies above 0"
    missing: str = f"at least {FEWEST} training runs with this measurement are needed"
    interval_above: float | None = 0.0
    correlates: tuple[str, str] | None = None
    given: str | None = None
    over: Literal["last", "all", "late", "within-methods"] = "last"
    rises: str | None = None
    falls: str | None = None


def training_runs_of(subject: Subject) -> Outcome:
    """The claims of a figure or table over checkpoints, with their rows as its figure."""
    found = [checkpoint_of(run) for run in _runs(subject)]
    claims = claims_over(subject.study.name.removeprefix("stutz-"), found)
    return Outcome(tuple(claims), {"checkpoints": [c.model_dump() for c in found]})


def _runs(subject: Subject) -> Sequence[Run]:
    """The given runs, or those of the given models, measured now."""
    return subject.runs or [
        measure_checkpoint(context, _KEPT, Plan(), subject.progress, ())
        for context in subject.contexts
    ]


def claims_over(figure: str, checkpoints: Sequence[Checkpoint]) -> list[Claim]:
    """The claims of one figure or table: `fig1`, `table1`."""
    entries = read_data("stutz", "claims.yaml")[figure]
    return [
        _judged(RunStatement(name=name, **entry), checkpoints) for name, entry in entries.items()
    ]


def _judged(claim: RunStatement, checkpoints: Sequence[Checkpoint]) -> Claim:
    if claim.correlates is not None:
        return _correlated(claim, checkpoints)
    if column := claim.rises or claim.falls:
        sign = -1.0 if claim.falls else 1.0
        return _positive(
            claim, mean_over_runs([sign * rise for rise in _rises(checkpoints, column)])
        )
    return _SPECIAL[claim.name](claim, checkpoints)


def _correlated(claim: RunStatement, checkpoints: Sequence[Checkpoint]) -> Claim:
    """Two columns rise together across checkpoints."""
    assert claim.correlates is not None
    rows, fields = _rows(claim, checkpoints), {}
    if claim.over == "within-methods":
        rows = _ranked_within_methods(rows)
        if rows.empty:
            why = "no method was given with several strengths (folders named method-strength-sSEED)"
            return claim.model_copy(update={"missing": why}).not_measured()
        fields["methods"] = ", ".join(sorted(rows["method"].unique()))
    fields["attacks"] = ", ".join(sorted({checkpoint.attack for checkpoint in checkpoints}))
    found = association(rows, *claim.correlates, given=claim.given)
    if found is None:
        return claim.not_measured()
    counted = f"ρ over {found.runs} training runs; n counts checkpoints."
    return _above_zero(claim, counted, found, found.rho, **fields)


def _rows(claim: RunStatement, checkpoints: Sequence[Checkpoint]) -> pd.DataFrame:
    if claim.over == "all":
        rows = frame(checkpoints)
    elif claim.over == "late":
        rows = frame([late for _, epochs in _stopped(checkpoints) for late in epochs])
    else:
        rows = last_epochs(checkpoints)
    return rows.assign(fitted=-rows["training_rerr"])


def _stopped(checkpoints: Sequence[Checkpoint]) -> list[tuple[str, list[Checkpoint]]]:
    """Each run's checkpoints from the one that early stopping keeps to the last."""
    found = []
    for run, epochs in by_run(checkpoints).items():
        if (place := chosen(epochs)) is not None:
            found.append((run, epochs[place:]))
    return found


def _rises(checkpoints: Sequence[Checkpoint], column: str) -> list[float]:
    """From the chosen to the last epoch, over all runs; 0 where the last is the chosen one."""
    ends = [(epochs[0], epochs[-1]) for _, epochs in _stopped(checkpoints)]
    before, after = (frame([pair[i] for pair in ends])[column] for i in (0, 1))
    return list(after - before)


def _ranked_within_methods(rows: pd.DataFrame) -> pd.DataFrame:
    """Methods with several strengths, their losses and flatness as ranks within the method."""
    rows = rows.assign(method=rows["run"].map(method_of), variant=rows["run"].map(variant_of))
    several = rows[rows.groupby("method")["variant"].transform("nunique") > 1]
    columns = ["flatness", "rloss"]
    ranks = several.groupby("method")[columns].rank(pct=True)
    return several.assign(**{column: ranks[column] for column in columns})


def _robust_are_flat(claim: RunStatement, checkpoints: Sequence[Checkpoint]) -> Claim:
    rows = last_epochs(checkpoints)
    good, poor = (float(np.quantile(rows["rerr"], q)) for q in (_GOOD, _POOR))
    flat = rows.loc[rows["rerr"] <= good, "flatness"].dropna().tolist()
    sharp = rows.loc[rows["rerr"] >= poor, "flatness"].dropna().tolist()
    found = None if good == poor else mean_difference(sharp, flat)
    if found is None:
        return claim.not_measured()
    return _positive(
        claim,
        found,
        good=np.mean(flat),
        good_runs=len(flat),
        poor=np.mean(sharp),
        poor_runs=len(sharp),
    )


def _early_stopping(claim: RunStatement, checkpoints: Sequence[Checkpoint]) -> Claim:
    rows = table(checkpoints)
    return _positive(
        claim, mean_over_runs([row.last.rerr - row.stopped.rerr for row in rows if row.stopped])
    )


_SPECIAL: dict[str, Callable[[RunStatement, Sequence[Checkpoint]], Claim]] = {
    "robust-are-flat": _robust_are_flat,
    "early-stopping": _early_stopping,
}


def _positive(claim: RunStatement, found: Mean | None, **fields: Any) -> Claim:
    if found is None:
        return claim.not_measured()
    return _above_zero(claim, "n counts training runs.", found, found.value, **fields)


def _above_zero(
    claim: RunStatement, counted: str, found: Mean | Association, value: float, **fields: Any
) -> Claim:
    noted = claim.model_copy(update={"note": f"{counted} {claim.note}".strip()})
    return noted.judge(value, interval=found.interval, samples=found.n, **fields)
