"""More budget: steps, restarts and radius; and what the audited path itself gave away."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import numpy as np
import pandas as pd

from flatguard.checks.beyond import unattempted
from flatguard.checks.evidence import Evidence
from flatguard.checks.finding import Finding, Status
from flatguard.checks.statistics import interval
from flatguard.geometry.budget import ABSOLUTE_SLACK, RELATIVE_SLACK

NAME = "more-budget"
SOURCE = "Carlini et al. 2019; Pintor et al. 2022"

ABOVE_CHANCE = 0.15
"""In the largest ball, accuracy may be so much above chance before it is a sign."""

DIPS = 0.05
RISING = 0.05
"""The loss is still rising if its median grows by this share over the last quarter of the path."""

FOLLOWED = 2000
"""The median is over at most so many samples, evenly spread: memory must not grow with more."""


def check_more_budget(evidence: Evidence, tolerance: float) -> Finding:
    """Fails where a longer search finds more than the tolerance beyond all shorter ones.

    Warns where accuracy does not fall to chance in the largest ball, is not monotone in the
    radius, where the loss was still rising, or a success along the path was lost at its end.
    """
    lost = lost_successes(evidence)
    rising = still_rising(evidence.trajectory, every=max(1, -(-evidence.n // FOLLOWED)))
    curve = accuracy_against_radius(evidence)
    ran = evidence.tried("budget")
    if not ran and not lost and not curve:
        why = f"no longer search was tried: {evidence.why_not('longer')}"
        return unattempted(evidence, NAME, SOURCE, "longer", why)
    shorter = evidence.chance | evidence.fell_to(
        "loss", "temperature", "float64", "saturating", "repair", "smoothed", "estimated", "eot"
    )
    only = evidence.fell_to("budget") - shorter
    share = len(only) / evidence.n
    signs = _signs(evidence, lost, rising, curve)
    status: Status = "fail" if share > tolerance else "warn" if signs or not ran else "pass"
    return Finding(
        check=NAME,
        status=status,
        summary="; ".join([f"{len(only)} survivors fall only to a longer search", *signs]),
        value=share if ran else None,
        threshold=tolerance,
        interval=interval(len(only), evidence.n) if ran else None,
        samples=evidence.n,
        source=SOURCE,
        next="evaluate with more steps and restarts" if status != "pass" else None,
        data={
            "lost_successes": len(lost),
            "rising": rising,
            "curve": [
                {"sight": sight, "eps": eps, "accuracy": accuracy}
                for (sight, eps), accuracy in curve.items()
            ],
        },
    )


def _signs(
    evidence: Evidence, lost: set[int], rising: float | None, curve: dict[tuple[str, float], float]
) -> list[str]:
    signs = []
    if lost:
        signs.append(f"{len(lost)} survivors were wrong somewhere along the audited path")
    if rising is not None and rising > RISING:
        signs.append(f"the loss still rose by {rising:.0%} over the last quarter of the path")
    for sight in sorted({name for name, _ in curve}):
        values = [curve[key] for key in sorted(curve) if key[0] == sight]
        if any(later > earlier + DIPS for earlier, later in pairwise(values)):
            signs.append(f"accuracy is not monotone in ε ({sight} direction)")
        if values[-1] > 1.0 / evidence.num_classes + ABOVE_CHANCE:
            signs.append(f"{values[-1]:.0%} are right in the largest ball ({sight} direction)")
    return signs


def accuracy_against_radius(evidence: Evidence) -> dict[tuple[str, float], float]:
    """Accuracy of the swept samples by direction and radius, in rising order."""
    probe = evidence.probe("sweep")
    if probe is None or "sweep" not in probe.tables:
        return {}
    table = probe.tables["sweep"]
    accuracy = (~table["fell"].astype(bool)).groupby([table["sight"], table["eps"]]).mean()
    found = zip(accuracy.index.tolist(), accuracy.tolist(), strict=True)
    return {(str(sight), float(eps)): float(value) for (sight, eps), value in sorted(found)}


def lost_successes(evidence: Evidence) -> set[int]:
    """Survivors that a recorded call within the budget classified wrong."""
    column = {"Linf": "linf", "L2": "l2"}.get(evidence.norm or "")
    if evidence.eps is None or column is None:
        return set()
    reach, lost = evidence.eps * (1.0 + RELATIVE_SLACK) + ABSOLUTE_SLACK, set[int]()
    for table in evidence.trajectory:
        rows = table[table["sample"].notna() & np.isfinite(table["margin"].to_numpy())]
        rows = rows[(rows["margin"] < 0) & (rows[column] <= reach)]
        lost |= set(rows["sample"].astype(int))
    return lost & evidence.reported


def still_rising(trajectory: Iterable[pd.DataFrame], every: int = 1) -> float | None:
    """By what share the median loss over the paths grew in the last quarter of the calls.

    None where paths are too short to tell.

    Args:
        trajectory: in pieces.
        every: follow so few of the samples: those whose number it divides.
    """
    parts = [_loss_by_step(table, every) for table in trajectory]
    losses = pd.concat(parts) if parts else pd.Series(dtype="float64")
    median = losses.groupby(level=0).median()
    if len(median) < 8:
        return None
    at = int(0.75 * (len(median) - 1))
    rise = float(median.iloc[-1] - median.iloc[at])
    return rise / max(float(median.max() - median.min()), 1e-12)


def _loss_by_step(table: pd.DataFrame, every: int) -> pd.Series:
    """Finite losses of every so many samples, by the number of the sample's own call."""
    rows = table[table["sample"].notna() & ~table["bookkeeping"] & np.isfinite(table["loss"])]
    number = rows["sample"].astype("int64")
    rows = rows[number % every == 0].sort_values("call", kind="stable")
    step = rows.groupby(rows["sample"].astype("int64")).cumcount()
    losses: pd.Series = pd.Series(rows["loss"].to_numpy(), index=step.to_numpy())
    return losses
