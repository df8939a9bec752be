"""Recorded mistakes: what the audited attack passed through within the budget, shown again.

An attack returns one example a sample, and may have passed through another that fools the model.
Where that one still fools it, the sample is not robust. Where it does not, although the model is
deterministic, what the attack saw is not what the model answers now.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd
from torch import Tensor

from flatguard.checks.check import Check, Probe, every_level
from flatguard.checks.context import CheckContext, Rows
from flatguard.checks.evidence import RECORDED, Evidence, ProbeEvidence
from flatguard.checks.finding import Finding, Status, not_run
from flatguard.checks.missing_evidence import how_to_run
from flatguard.checks.search.attempts import Attempt, AttemptTable, Method
from flatguard.checks.state_evidence import taken_back
from flatguard.checks.statistics import interval
from flatguard.geometry.budget import with_rounding
from flatguard.geometry.decision import margin

NAME = "recorded-mistakes"
_NOTHING = pd.DataFrame(
    {
        "sample": pd.Series(dtype="int64"),
        "moved": pd.Series(dtype="float64"),
        "held": pd.Series(dtype="bool"),
    }
)
_NONE = "no survivor was classified wrong at any step of the audited attack"
_SOURCE = "Carlini et al. 2019 (report the worst case over all that was tried)"


def gather_recorded(context: CheckContext, _: int) -> ProbeEvidence:
    """Show the recorded examples of all survivors to the model again.

    Cost: two forward passes for each of them; more for randomised targets.
    """
    return show_again(context, RECORDED)


def show_again(context: CheckContext, name: str) -> ProbeEvidence:
    """Show the recorded examples again, as an attempt of this name.

    The table `recorded` has how far each margin has moved since, as a share of the logits' size.
    """
    table, frames = AttemptTable(), [_NOTHING]
    for plan in context.run.manifest.blocks:
        kept = context.run.mistakes(plan.index)
        if kept is None:
            continue
        place = {int(number): row for row, number in enumerate(kept.sample)}
        for rows in context.rows(kept.sample.numpy()):
            index = [place[int(number)] for number in rows.sample]
            images = kept.images[index].to(context.device)
            table.add(context, Attempt(name, "recorded", _shown(context, images)), rows)
            logits = context.logits(images).double()
            size = (logits - logits.mean(dim=1, keepdim=True)).abs().amax(dim=1).clamp_min(1e-30)
            then = kept.margin[index].to(logits.device)
            columns = {
                "sample": rows.sample.cpu().numpy(),
                "moved": ((margin(logits, rows.labels) - then).abs() / size).cpu().numpy(),
                "held": table.frames[-1]["fooled"].to_numpy(),
            }
            frames.append(pd.DataFrame(columns))
    found = table.evidence()
    found.tables[RECORDED] = pd.concat(frames[1:] or frames, ignore_index=True)
    return found


def _shown(context: CheckContext, images: Tensor) -> Method:
    def method(rows: Rows) -> tuple[Tensor, Tensor]:
        return images, context.fools(images, rows)

    return method


def mistakes_along_the_path(evidence: Evidence) -> set[int] | None:
    """Survivors that a recorded call within the budget classified wrong; None in other norms."""
    column = {"Linf": "linf", "L2": "l2"}.get(evidence.norm or "")
    if evidence.eps is None or column is None:
        return None
    return _wrong_within(evidence.trajectory, column, with_rounding(evidence.eps)) & (
        evidence.reported
    )


def _wrong_within(trajectory: Iterable[pd.DataFrame], column: str, reach: float) -> set[int]:
    found = set[int]()
    for table in trajectory:
        rows = table[table["sample"].notna() & np.isfinite(table["margin"].to_numpy())]
        rows = rows[(rows["margin"] < 0) & (rows[column] <= reach)]
        found |= set(rows["sample"].astype(int))
    return found


def _judge(evidence: Evidence, tolerance: float) -> Finding:
    """Fails where the model takes back what was recorded, or more than the tolerance holds."""
    passed = mistakes_along_the_path(evidence)
    probe = evidence.probe(RECORDED)
    if probe is None or RECORDED not in probe.tables:
        if passed == set():
            return Finding(
                check=NAME, status="pass", source=_SOURCE, samples=evidence.n, value=0.0,
                summary=_NONE,
            )  # fmt: skip
        why = f"nothing was shown again: {evidence.why_not(RECORDED)}"
        return not_run(NAME, _SOURCE, why, how_to_run(evidence, RECORDED, searches=False))
    shown = set(probe.tables[RECORDED]["sample"].astype(int)) & evidence.reported
    held, lost = evidence.fooled_by("recorded"), taken_back(evidence)
    share = len(held) / evidence.n
    # What a randomised target gets wrong by luck is weighed by `determinism`.
    is_much = share > tolerance and evidence.confirmed is None
    status: Status = "fail" if lost or is_much else "warn" if held else "pass"
    return Finding(
        check=NAME,
        status=status,
        summary=_summary(shown, held, lost, passed),
        value=share,
        threshold=tolerance,
        interval=interval(len(held), evidence.n),
        samples=evidence.n,
        source=_SOURCE,
        next=_advice(held, lost),
        data={"shown": len(shown), "held": len(held), "taken_back": len(lost)},
    )


def _summary(shown: set[int], held: set[int], lost: set[int], passed: set[int] | None) -> str:
    if not shown:
        return _NONE
    found = (
        f"{len(shown)} survivors were classified wrong at a step of the audited attack; shown "
        f"again, {len(held)} are wrong"
    )
    if lost:
        found += f", and {len(lost)} are right with other logits than the attack was given"
    unkept = len((passed or set()) - shown)
    return f"{found}; of {unkept} others no example was kept" if unkept else found


def _advice(held: set[int], lost: set[int]) -> str | None:
    if lost:
        return (
            "find out why the model answers the same image differently: earlier calls, or the "
            "other images of its batch"
        )
    return "let the attack return the most wrong example that it passes through" if held else None


_WHY = (
    "An example within the budget that the model classifies wrong refutes robustness on its "
    "sample, whatever the attack returns. If the model takes it back, its answers depend on more "
    "than the image."
)

CHECK = Check(
    NAME,
    _SOURCE,
    _WHY,
    _judge,
    (
        Probe(
            RECORDED,
            gather_recorded,
            every_level(1),
            lambda context, _: 0.0,
            order=0,
            searches=False,
            per_survivor=False,
        ),
    ),
    decisive=True,
)
