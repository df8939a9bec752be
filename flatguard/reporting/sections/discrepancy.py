"""Which attempt fools which survivor of the audited attack."""

from __future__ import annotations

import numpy as np
import pandas as pd

from flatguard.reporting.attack_matrix import AttemptRow, attack_matrix
from flatguard.reporting.figure import FigureText
from flatguard.reporting.judged_run import JudgedRun
from flatguard.reporting.sections.section import NotMeasured, Section, SectionContent
from flatguard.reporting.sections.twins import attempt_name, why_no_attempts
from flatguard.reporting.text import MINUS, counted, number

_FEWEST = 6
"""A rank correlation over fewer fooled samples is not shown."""


def _build(judged: JudgedRun) -> SectionContent | NotMeasured:
    evidence = judged.evidence
    missing = why_no_attempts(judged)
    if missing is not None:
        return missing
    survivors = np.array(sorted(evidence.standing), dtype=np.int64)
    rows = [
        AttemptRow(attempt_name(str(name)), _results(attempt, survivors))
        for name, attempt in evidence.attempts.groupby("attempt", sort=False)
    ]
    fooled, chance = evidence.fooled, evidence.chance
    figure = attack_matrix(
        FigureText(
            "results-by-attempt",
            "Results by attempt and sample",
            f"Of {counted(len(survivors), 'survivor')}, {len(fooled):,} are fooled by another "
            f"attempt. {len(fooled - chance):,} of them are fooled neither by the plain search nor "
            "by the audited attack with another seed.",
            "Coloured: fooled. Grey: tried and survived. Empty: not tried. Samples that the "
            "audited attack fooled are not shown. If there are many samples, several share a "
            "column.",
        ),
        "survivors of the audited attack",
        rows,
    )
    data = {row.name: {"tried": row.tried_count, "fooled": row.fooled_count} for row in rows}
    return SectionContent((figure,), intro=_rank_sentence(judged), data=data)


def _results(attempt: pd.DataFrame, survivors: np.ndarray) -> np.ndarray:
    """1, 0, or NaN if not tried; if an attempt was repeated, one success is enough."""
    by_sample = attempt.groupby(attempt["sample"].astype("int64"))["fooled"].max()
    found: np.ndarray = by_sample.astype(float).reindex(survivors).to_numpy(float)
    return found


def _rank_sentence(judged: JudgedRun) -> str:
    finding = next((f for f in judged.verdict.findings if f.check == "discrepancy"), None)
    rank = finding.data.get("rank_biserial") if finding else None
    if rank is None or len(judged.evidence.fooled) < _FEWEST:
        return ""
    return (
        "Among the samples that an attack on a twin (a copy that makes the same decisions) fools, "
        f"clean {judged.sharpness.log_name} and survival of the audited attack have the "
        f"rank-biserial correlation {number(rank, 2)}. {MINUS}1 means that just those survived at "
        "which the loss is flattest, and 0 that flatness does not matter."
    )


DISCREPANCY = Section("discrepancy", "Which attempts fool which samples", _build)
