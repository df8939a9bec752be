"""Figure 14: sharpness of the layers before the head, along the attack, by Hutchinson's estimator.

What `flatguard evaluate --layers` records, for a few samples: each estimate has a standard error.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from flatguard.checks.statistics import interval, rank_correlation
from flatguard.execution.missing_blocks import attack_new_run
from flatguard.recording.layers import METHOD
from flatguard.studies.claim import Claim, agrees_if, not_measured, share
from flatguard.studies.study import Outcome, Subject

LAYERS = 4


def layers_of(subject: Subject) -> Outcome:
    """One run with its layers recorded; the folder is thrown away."""
    context = subject.context
    update = {"layers": LAYERS, "layer_samples": subject.count, "n_examples": subject.count}
    recorded = replace(context, request=context.request.model_copy(update=update))
    subject.head()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        run = attack_new_run(recorded, out, (), subject.progress)
        table, samples = run.layers, run.samples
    fooled = samples.loc[samples["clean_correct"] & ~samples["robust"], "sample"]
    table = table[(table["method"] == METHOD) & table["sample"].isin(fooled)]
    depths = sorted(int(depth) for depth in table["depth"].unique())
    if not depths:
        why = "the attack fooled no sample that was right"
        return Outcome((not_measured("peak", PEAK, "no number", RULE, why),))
    claims = [one(table, depth) for one in (_peak, _flatter) for depth in depths]
    claims += [_follows(table, depth) for depth in depths if depth]
    claims.append(_largest(table))
    return Outcome(tuple(claims), _figures(table))


PEAK = "κ is largest on the way, not at either end,"
RULE = "it holds for more than half of the fooled samples, by the whole interval"


def _peak(table: pd.DataFrame, depth: int) -> Claim:
    rows = table[table["depth"] == depth]
    tops = rows.loc[rows.groupby("sample")["kappa"].idxmax(), "point"]
    return _majority(f"peak-{depth}", f"{PEAK} {_where(depth)}.", (tops == "attack").tolist())


def _flatter(table: pd.DataFrame, depth: int) -> Claim:
    """By more than two standard errors of the difference."""
    rows = table[table["depth"] == depth].set_index(["sample", "point"])
    clean, end = (rows.xs(point, level="point") for point in ("clean", "adversarial"))
    error = np.hypot(clean["standard_error"], end["standard_error"])
    holds = clean["kappa"] - end["kappa"] > 2 * error
    claim = f"Adversarial examples are flatter than their clean image {_where(depth)}."
    return _majority(f"flatter-{depth}", claim, holds.tolist())


def _where(depth: int) -> str:
    return "in the head" if depth == 0 else f"in layer l - {depth}"


def _majority(name: str, claim: str, holds: list[bool]) -> Claim:
    """Few samples leave some questions open; then nothing was measured."""
    count, n = sum(holds), len(holds)
    low, high = interval(count, n)
    if low <= 0.5 <= high:
        why = f"{count} of {n} (95% {low:.0%} to {high:.0%}): too few samples to tell"
        return not_measured(name, claim, "no number", RULE, why)
    return share(
        count,
        n,
        name=name,
        claim=claim,
        paper="no number",
        rule=RULE,
        verdict=agrees_if(low > 0.5),
    )


def _follows(table: pd.DataFrame, depth: int) -> Claim:
    keys = ["sample", "point", "call"]
    head, other = (
        table[table["depth"] == d].set_index(keys)["kappa"].sort_index() for d in (0, depth)
    )
    both = pd.concat([head, other], axis=1, keys=["head", "other"]).dropna()
    found = rank_correlation(both["head"].tolist(), both["other"].tolist())
    name = f"follows-{depth}"
    claim = f"Layer l - {depth} shows the same phenomenon as the head."
    rule = "ρ of both layers' κ over all points is at least 0.5"
    if found is None:
        return not_measured(name, claim, "no number", rule, "too few points")
    return Claim(
        name=name,
        claim=claim,
        paper="the same phenomena, no number",
        ours=found.rho,
        interval=found.interval,
        samples=found.n,
        rule=rule,
        verdict=agrees_if(found.rho >= 0.5),
        note="Points of one sample are not independent, so the interval is too narrow.",
    )


def _largest(table: pd.DataFrame) -> Claim:
    keys = ["sample", "point", "call"]
    filled = table.assign(call=table["call"].fillna(-1))
    top = filled.loc[filled.groupby(keys)["kappa"].idxmax(), "depth"]
    count, n = int((top == 0).sum()), len(top)
    return share(
        count,
        n,
        name="largest-at-head",
        claim='"Any sharpness measure based on the Hessian attains its maximum" at the last layer '
        "(Section 4).",
        paper="always",
        rule="the head has the largest κ of the measured layers at every point",
        verdict="agrees" if count == n else "refuted",
        note="Share of points at which it does, by estimates. A layer's κ also has the size of its "
        "own inputs and weights, which grow or shrink by any factor where a later layer undoes it; "
        "only a Hessian of exactly zero passes to all earlier layers.",
    )


def _figures(table: pd.DataFrame) -> dict[str, Any]:
    kinds = ("clean", "attack", "adversarial")
    medians = table.groupby(["depth", "point"])["kappa"].median()
    return {
        "median_kappa": {
            str(depth): {kind: float(medians[depth, kind]) for kind in kinds}
            for depth in sorted(table["depth"].unique())
        },
        "layers": {
            str(depth): str(name)
            for depth, name in table.drop_duplicates("depth")[["depth", "layer"]].itertuples(
                index=False
            )
        },
    }
