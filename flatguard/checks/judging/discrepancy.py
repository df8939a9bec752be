"""Sharpness against transfer: what survives the attack but falls to a twin that decides alike."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from flatguard.checks.beyond import beyond_chance
from flatguard.checks.evidence import Evidence
from flatguard.checks.finding import Finding, not_run
from flatguard.checks.statistics import rank_biserial

NAME = "discrepancy"
SOURCE = "Walter et al. 2026, Appendix D.3; Carlini et al. 2019"
TWINS = ("temperature", "float64", "saturating", "repair", "smoothed", "estimated", "eot")

RIDGE_DROP = 2.0
"""A path crossed the ridge if log κ ends so much (in nats) below its peak."""


def check_discrepancy(evidence: Evidence, tolerance: float) -> Finding:
    """Fails where twins find more than the tolerance, beyond what chance finds (exact McNemar)."""
    if not evidence.tried(*TWINS):
        if evidence.reported:
            return not_run(NAME, SOURCE, f"no twin was attacked: {evidence.why_not('twins')}")
        return Finding(
            check=NAME, status="pass", summary="no sample survived the audited attack",
            value=0.0, threshold=tolerance, samples=evidence.n, source=SOURCE,
        )  # fmt: skip
    fell, beyond = evidence.fell_to(*TWINS), beyond_chance(evidence, *TWINS)
    status = beyond.status(tolerance)
    return Finding(
        check=NAME,
        status=status,
        summary=(
            f"{len(fell)} of {len(evidence.reported)} survivors fall to a twin that decides alike, "
            f"{len(beyond.only)} of them to twins only (p = {beyond.p:.2g}); "
            f"{len(evidence.chance)} fall to a plain search or another seed"
            f"{beyond.doubt(tolerance)}"
        ),
        value=beyond.share,
        threshold=tolerance,
        interval=beyond.interval,
        samples=evidence.n,
        source=SOURCE,
        next=f"attack the {_best(evidence)} twin" if status != "pass" else None,
        data={
            "p_value": beyond.p,
            "by_attempt": _by_attempt(evidence),
            "paths": _paths(evidence, fell),
            "rank_biserial": _sharpness_and_survival(evidence, fell),
        },
    )


def _best(evidence: Evidence) -> str:
    table = evidence.attempts
    twins = table[table["fell"].astype(bool) & table["family"].isin(TWINS)]
    return str(twins.groupby("attempt")["sample"].nunique().idxmax())


def _by_attempt(evidence: Evidence) -> dict[str, int]:
    table = evidence.attempts
    counts = table.loc[table["fell"].astype(bool)].groupby("attempt")["sample"].nunique()
    names = table["attempt"].unique()
    return {str(name): int(counts.get(name, 0)) for name in sorted(names)}


def _sharpness_and_survival(evidence: Evidence, fell: set[int]) -> float | None:
    """Among all that fall to a twin: are those that survived the audit the flatter ones?

    What fools the target fools every twin, so the samples that fell to the audit count.
    """
    samples = evidence.samples[evidence.samples["clean_correct"]]
    survived = samples[samples["sample"].isin(fell)]
    others = samples[~samples["robust"]]
    return rank_biserial(
        survived["clean_log_kappa"].tolist(), others["clean_log_kappa"].tolist()
    )  # fmt: skip


def _paths(evidence: Evidence, fell: set[int]) -> list[dict[str, Any]]:
    """Counts of survived × fell to a twin × what the audited path did to log κ."""
    crossed = {n: path for table in evidence.trajectory for n, path in crossed_ridge(table).items()}
    samples = evidence.samples[evidence.samples["clean_correct"]]
    rows = pd.DataFrame(
        {
            "survived": samples["robust"].astype(bool).to_numpy(),
            "fell_to_twin": (samples["sample"].isin(fell) | ~samples["robust"]).to_numpy(),
            "path": [crossed.get(int(i), "not measured") for i in samples["sample"]],
        }
    )
    counted = rows.value_counts(sort=False).sort_index().rename("samples").reset_index()
    return [
        {
            "survived": bool(row["survived"]),
            "fell_to_twin": bool(row["fell_to_twin"]),
            "path": str(row["path"]),
            "samples": int(row["samples"]),
        }
        for row in counted.to_dict("records")
    ]


def crossed_ridge(trajectory: pd.DataFrame) -> dict[int, str]:
    """For each sample: did its path cross a ridge of log κ, climb it, or sit in a flat basin?

    `crossed`: log κ rose above where it began and ended `RIDGE_DROP` below its peak; `climbed`:
    it rose by that much and stayed; `flat basin`: neither.
    """
    rows = trajectory[trajectory["sample"].notna() & ~trajectory["bookkeeping"]]
    rows = rows[np.isfinite(rows["log_kappa"])].sort_values("call", kind="stable")
    grouped = rows.groupby(rows["sample"].astype("int64"))["log_kappa"]
    if not len(rows):
        return {}
    table = pd.DataFrame({"first": grouped.first(), "peak": grouped.max(), "last": grouped.last()})
    rose = table["peak"] - table["first"]
    fell = table["peak"] - table["last"]
    turned = np.where(rose > RIDGE_DROP, "climbed", "flat basin")
    path = np.where((rose > 0) & (fell > RIDGE_DROP), "crossed", turned)
    return dict(zip(table.index.astype(int), path, strict=True))
