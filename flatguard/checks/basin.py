"""Basin: attack paths along which the loss stays as it is. It reads the audited path only."""

from __future__ import annotations

import numpy as np

from flatguard.checks.check import Check
from flatguard.checks.evidence import Evidence
from flatguard.checks.finding import Finding, not_run
from flatguard.checks.statistics import interval
from flatguard.checks.visited import distance_column, visited_of
from flatguard.geometry.basin import LOSS_TOLERANCE, Bools, basins

NAME = "basin"
_SOURCE = "Walter et al. 2026, Definitions 4 to 6"
_MOST = 0.5


def _judge(evidence: Evidence, tolerance: float) -> Finding:
    """Warns where most survivors' paths never leave the loss tolerance."""
    if not evidence.reported:
        return Finding(check=NAME, status="pass", summary="no sample survived", source=_SOURCE)
    left = _left(evidence)
    if not len(left):
        why = "no model call of the attack could be assigned to a survivor for certain"
        return not_run(NAME, _SOURCE, why, None)
    inside = ~left
    share = float(inside.mean())
    return Finding(
        check=NAME,
        status="warn" if share > _MOST else "pass",
        summary=(
            f"on {int(inside.sum())} of {len(inside)} survivors the attack never raised the loss "
            f"by more than {LOSS_TOLERANCE:g}: it stayed in their basin, where the loss is flat"
        ),
        value=share,
        threshold=_MOST,
        interval=interval(int(inside.sum()), len(inside)),
        samples=len(inside),
        source=_SOURCE,
        next="the attack finds no direction that raises the loss: the check discrepancy says why"
        if share > _MOST
        else None,
        data={"drift": _drift(evidence)},
    )


def _left(evidence: Evidence) -> Bools:
    """Whether each survivor's path left its basin."""
    column, parts = distance_column(evidence.norm), [np.empty(0, bool)]
    for table in evidence.trajectory:
        rows = table[table["sample"].notna() & ~table["bookkeeping"] & np.isfinite(table["loss"])]
        rows = rows[rows["sample"].isin(evidence.reported)].sort_values(
            ["sample", "call"], kind="stable"
        )
        if len(rows):
            parts.append(basins(visited_of(rows, evidence.samples, column), LOSS_TOLERANCE).left)
    return np.concatenate(parts)


def _drift(evidence: Evidence) -> dict[str, float | None]:
    """Median change of ‖φ‖ (relative) and of confidence over the survivors' paths."""
    kept = evidence.samples[evidence.samples["robust"]]
    norm = (kept["adv_feature_norm"] / kept["clean_feature_norm"] - 1.0).median()
    confidence = (kept["adv_confidence"] - kept["clean_confidence"]).median()
    found = {"feature_norm": float(norm), "confidence": float(confidence)}
    return {name: value if np.isfinite(value) else None for name, value in found.items()}


_WHY = (
    "If the loss does not change along the attack, the attack tested nothing, whatever its number"
    " of steps."
)

CHECK = Check(NAME, _SOURCE, _WHY, _judge)
