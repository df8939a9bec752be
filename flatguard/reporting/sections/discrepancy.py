"""Which attempt fools which survivor of the audited attack."""

from __future__ import annotations

import numpy as np
import pandas as pd

from flatguard.reporting.attempt_charts import MatrixRow, matrix
from flatguard.reporting.charts import Words
from flatguard.reporting.judged_run import JudgedRun
from flatguard.reporting.sections.section import Drawn, NotMeasured, Section
from flatguard.reporting.sections.twins import attempt_name
from flatguard.reporting.text import MINUS, counted, number


def _draw(judged: JudgedRun) -> Drawn | NotMeasured:
    evidence = judged.evidence
    survivors = np.array(sorted(evidence.reported), dtype=np.int64)
    table = evidence.attempts
    if not len(survivors):
        return NotMeasured("no sample survived the audited attack, so none was tried again")
    if not len(table):
        return NotMeasured(
            "no survivor was attacked again", "flatguard audit RUN --checks fast"
        )  # fmt: skip
    rows = [
        MatrixRow(attempt_name(str(name)), _fell(table[table["attempt"] == name], survivors))
        for name in table["attempt"].unique()
    ]
    fallen, chance = evidence.fooled, evidence.chance
    figure = matrix(
        Words(
            "who-falls",
            "Which attack fools which sample",
            f"Of {counted(len(survivors), 'survivor')}, {len(fallen):,} fall to another attempt, "
            f"{len(fallen - chance):,} of them neither to the plain search nor to another seed.",
            "Coloured: fell. Grey: tried, and stood. Empty: not tried. Samples that the audited "
            "attack fooled itself are left out; several share a column where there are many.",
        ),
        "survivors of the audited attack",
        rows,
    )
    return Drawn((figure,), intro=_rank(judged), data={row.name: _sum(row) for row in rows})


def _fell(attempt: pd.DataFrame, survivors: np.ndarray) -> np.ndarray:
    """1, 0, or NaN where it was not tried; an attempt that was made twice counts if either did."""
    by_sample = attempt.groupby(attempt["sample"].astype("int64"))["fooled"].max()
    found: np.ndarray = by_sample.astype(float).reindex(survivors).to_numpy(float)
    return found


def _sum(row: MatrixRow) -> dict[str, int]:
    return {"tried": int(np.isfinite(row.fell).sum()), "fell": int(np.nansum(row.fell))}


FEWEST = 6
"""A rank correlation over fewer fallen samples is an accident."""


def _rank(judged: JudgedRun) -> str:
    found = next((f for f in judged.verdict.findings if f.check == "discrepancy"), None)
    rank = found.data.get("rank_biserial") if found else None
    if rank is None or len(judged.evidence.fooled) < FEWEST:
        return ""
    return (
        f"Among all samples that fall to a twin, the rank-biserial correlation of clean log κ with "
        f"survival is {number(rank, 2)}: near {MINUS}1, they survived because they are flat."
    )


DISCREPANCY = Section("discrepancy", "Who falls to what", _draw)
