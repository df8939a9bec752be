"""Figure 6 and Table 1: methods and their hyper-parameters, from robust to not."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from flatguard.studies.claim import Claim, not_measured
from flatguard.studies.stutz.checkpoint import Checkpoint
from flatguard.studies.stutz.correlation import association, mean_difference, mean_over_runs
from flatguard.studies.stutz.from_runs import FEW, POSITIVE, correlated, positive
from flatguard.studies.stutz.table import last_epochs, method_of, table, variant_of

GOOD, POOR = 0.3, 0.7
"""The percentiles of robust error that Table 1 splits at."""


def figure_6(checkpoints: Sequence[Checkpoint]) -> list[Claim]:
    """Within a method: its strengths and seeds."""
    rows = _several_strengths(last_epochs(checkpoints))
    name = "within-methods"
    claim = "Among the hyper-parameters of one method, those with lower robust loss are flatter."
    paper = "a clear relation, no number"
    if rows.empty:
        why = "no method was given with several strengths (folders named method-strength-sSEED)"
        return [not_measured(name, claim, paper, POSITIVE, why)]
    columns = ["flatness", "rloss"]
    ranks = rows.groupby("method")[columns].rank(pct=True)
    methods = ", ".join(sorted(rows["method"].unique()))
    found = association(rows.assign(**{c: ranks[c] for c in columns}), "flatness", "rloss")
    return [correlated(name, claim, paper, found, f"Ranked within each of: {methods}.")]


def _several_strengths(rows: pd.DataFrame) -> pd.DataFrame:
    rows = rows.assign(method=rows["run"].map(method_of), variant=rows["run"].map(variant_of))
    several: pd.DataFrame = rows[rows.groupby("method")["variant"].transform("nunique") > 1]
    return several


def table_1(checkpoints: Sequence[Checkpoint]) -> list[Claim]:
    """Robust against poor runs, the training error that robustness costs, and early stopping."""
    rows = last_epochs(checkpoints)
    early = [row.last.rerr - row.stopped.rerr for row in table(checkpoints) if row.stopped]
    return [
        _robust_are_flat(rows),
        correlated(
            "training-error",
            "Lower robust error on test goes with higher robust error on training examples.",
            "commonly, no number",
            association(rows.assign(fitted=-rows["training_rerr"]), "rerr", "fitted"),
            "Training error against PGD.",
        ),
        positive(
            "early-stopping",
            "Early stopping lowers robust error.",
            "by 0 to 8.2 points, mean 3.4 over 19 rows",
            mean_over_runs(early),
            "Robust error of the last epoch minus that of the one chosen on held-out samples.",
        ),
    ]


def _robust_are_flat(rows: pd.DataFrame) -> Claim:
    name, claim = "robust-are-flat", "Runs with good robustness are flatter than those with poor."
    paper = "0.75: 1.13 over the last six rows, 0.38 over the first six"
    good, poor = (float(np.quantile(rows["rerr"], q)) for q in (GOOD, POOR))
    flat, sharp = (
        rows.loc[chosen, "flatness"].dropna().tolist()
        for chosen in (rows["rerr"] <= good, rows["rerr"] >= poor)
    )
    found = mean_difference(sharp, flat)
    if found is None or good == poor:
        return not_measured(name, claim, paper, POSITIVE, FEW)
    means = (
        f"{np.mean(flat):.3f} (good, {len(flat)} runs), {np.mean(sharp):.3f} (poor, {len(sharp)})"
    )
    note = f"Mean flatness of the poor minus that of the good: {means}."
    return positive(name, claim, paper, found, note)
