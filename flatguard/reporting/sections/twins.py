"""The same decisions behind other logits: what is left when the twins are attacked instead."""

from __future__ import annotations

import pandas as pd

from flatguard.checks.statistics import interval
from flatguard.reporting.attempt_charts import Row, dots
from flatguard.reporting.charts import Axis, Words
from flatguard.reporting.figure import Tone
from flatguard.reporting.judged_run import JudgedRun
from flatguard.reporting.sections.section import Drawn, NotMeasured, Section
from flatguard.reporting.text import counted, number, percent

CHANCE = ("repeat", "control")
SHOWN = {
    "repeat": "audited, new seed",
    "control": "plain search",
    "temperature": "logits ÷ temperature",
    "float64": "in float64",
    "margin": "margin loss",
}
"""Other attempts are shown by the name that their probe gave them."""


def attempt_name(name: str) -> str:
    """An attempt as a person knows it."""
    return SHOWN.get(name, name)


def _draw(judged: JudgedRun) -> Drawn | NotMeasured:
    table = judged.evidence.attempts
    if not len(table):
        if not judged.evidence.reported:
            return NotMeasured("no sample survived the audited attack, so none was tried again")
        return NotMeasured(
            "no survivor was attacked again", "flatguard audit RUN --checks fast"
        )  # fmt: skip
    rows = _rows(judged, table)
    best = min(rows, key=lambda row: row.share)
    figure = dots(
        Words(
            "twins",
            "The same decisions, other logits: what each attempt leaves",
            f"From {percent(rows[0].share)} as audited down to {percent(best.share)} by "
            f"{best.name}.",
            "Each attempt attacks the survivors only, in the same budget. A twin decides as the "
            "target does, so every example that fools it transfers to the target, and was verified "
            "there. Where the plain search finds little and a twin much, the logits' scale or "
            "precision hid the gradient, and the model is no more robust for it. Whiskers are "
            "exact 95% intervals.",
        ),
        Axis("robust accuracy left, of all samples", is_share=True),
        rows,
    )
    data = {row.name: {"accuracy": row.share, "interval": list(row.interval)} for row in rows}
    return Drawn((figure,), intro=_scale(judged), data=data)


def _scale(judged: JudgedRun) -> str:
    scale, kappa = judged.run.request.logit_scale, judged.summary["median_log_kappa_clean"]
    pieces = [f"The target's own logits are multiplied by {scale:g}."] if scale != 1.0 else []
    if kappa is not None:
        pieces.append(
            f"Its median log κ is {number(kappa)} clean; the lower, the surer, and the less "
            "cross-entropy's gradient has to say."
        )
    return " ".join(pieces)


def _rows(judged: JudgedRun, table: pd.DataFrame) -> list[Row]:
    n, survivors = judged.evidence.n, len(judged.evidence.reported)
    every = f"{counted(survivors, 'survivor')} of {n:,} samples"
    rows = [Row("as audited", "survived", survivors / n, interval(survivors, n), every)]
    for name in table["attempt"].unique():
        of = table[table["attempt"] == name]
        tried = set(of["sample"].astype(int)) & judged.evidence.reported
        fell = set(of.loc[of["fooled"].astype(bool), "sample"].astype(int)) & tried
        left = survivors - len(fell)
        tone: Tone = "other" if of["family"].iloc[0] in CHANCE else "fell"
        note = f"{counted(len(fell), 'survivor')} of {len(tried):,} tried fell"
        rows.append(Row(attempt_name(str(name)), tone, left / n, interval(left, n), note))
    rows[1:] = sorted(rows[1:], key=lambda row: -row.share)
    left = survivors - len(judged.evidence.fooled)
    rows.append(Row("worst case, corrected", "ink", left / n, interval(left, n), every))
    return rows


TWINS = Section("other-logits", "Other logits", _draw)
