"""Figure 14: sharpness of the layers before the head, along the attack, by Hutchinson's estimator.

The numbers are those of `flatguard evaluate --layers`, for a few samples. Each estimate has a
standard error.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from flatguard.checks.statistics import interval, rank_correlation
from flatguard.execution.missing_blocks import attack_without_checks
from flatguard.recording.layers import METHOD
from flatguard.studies.claim import Claim
from flatguard.studies.statement import statements
from flatguard.studies.study import Outcome, Subject

_CLAIMS = statements("walter", "layers")
_LAYERS = 4


def layers_of(subject: Subject) -> Outcome:
    """One run with its layers recorded; the folder is thrown away."""
    context = subject.context
    update = {"layers": _LAYERS, "layer_samples": subject.count}
    recorded = replace(context, request=context.request.model_copy(update=update))
    subject.head()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        run = attack_without_checks(recorded, out, (), subject.progress)
        table, samples = run.layers, run.samples
    fooled = samples.loc[samples["clean_correct"] & ~samples["robust"], "sample"]
    table = table[(table["method"] == METHOD) & table["sample"].isin(fooled)]
    depths = sorted(int(depth) for depth in table["depth"].unique())
    if not depths:
        return Outcome((_CLAIMS["peak"].not_measured(),))
    claims = [one(table, depth) for one in (_peak, _flatter) for depth in depths]
    claims += [_follows(table, depth) for depth in depths if depth]
    claims.append(_largest(table))
    return Outcome(tuple(claims), _figures(table))


def _peak(table: pd.DataFrame, depth: int) -> Claim:
    rows = table[table["depth"] == depth]
    tops = rows.loc[rows.groupby("sample")["kappa"].idxmax(), "point"]
    return _majority("peak-{depth}", depth, tops == "attack")


def _flatter(table: pd.DataFrame, depth: int) -> Claim:
    """By more than two standard errors of the difference."""
    rows = table[table["depth"] == depth].set_index(["sample", "point"])
    clean, end = (rows.xs(point, level="point") for point in ("clean", "adversarial"))
    error = np.hypot(clean["standard_error"], end["standard_error"])
    return _majority("flatter-{depth}", depth, clean["kappa"] - end["kappa"] > 2 * error)


def _majority(name: str, depth: int, holds: pd.Series) -> Claim:
    """Not measured where the interval of so few samples contains one half."""
    where = "in the head" if depth == 0 else f"in layer l - {depth}"
    count, n = int(holds.sum()), len(holds)
    low, high = interval(count, n)
    if low <= 0.5 <= high:
        fields = {"count": count, "n": n, "low": low, "high": high}
        return _CLAIMS[name].not_measured(depth=depth, where=where, **fields)
    return _CLAIMS[name].share(count, n, depth=depth, where=where)


def _follows(table: pd.DataFrame, depth: int) -> Claim:
    keys = ["sample", "point", "call"]
    head, other = (
        table[table["depth"] == d].set_index(keys)["kappa"].sort_index() for d in (0, depth)
    )
    both = pd.concat([head, other], axis=1, keys=["head", "other"]).dropna()
    found = rank_correlation(both["head"].tolist(), both["other"].tolist())
    claim = _CLAIMS["follows-{depth}"]
    if found is None:
        return claim.not_measured(depth=depth)
    return claim.judge(found.rho, interval=found.interval, samples=found.n, depth=depth)


def _largest(table: pd.DataFrame) -> Claim:
    keys = ["sample", "point", "call"]
    filled = table.assign(call=table["call"].fillna(-1))
    top = filled.loc[filled.groupby(keys)["kappa"].idxmax(), "depth"]
    return _CLAIMS["largest-at-head"].share_of(top == 0)


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
