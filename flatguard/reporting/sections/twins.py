"""The robust accuracy that remains after each attempt on the survivors of the audited attack."""

from __future__ import annotations

from flatguard.checks.evidence import CHANCE
from flatguard.checks.missing_evidence import how_to_run
from flatguard.checks.statistics import interval
from flatguard.reporting.figure import FigureText, Tone
from flatguard.reporting.interval_chart import IntervalRow, interval_chart
from flatguard.reporting.judged_run import JudgedRun
from flatguard.reporting.sections.section import NotMeasured, Section, SectionContent
from flatguard.reporting.text import counted, number, percent

_NAMES = {
    "repeat": "audited, new seed",
    "control": "plain search",
    "temperature": "logits ÷ temperature",
    "float64": "in float64",
    "margin": "margin loss",
}


def attempt_name(name: str) -> str:
    """The name under which reports show an attempt; most have the name that their check stored."""
    return _NAMES.get(name, name)


def why_no_attempts(judged: JudgedRun) -> NotMeasured | None:
    """Why no survivor was attacked again; None if some were."""
    if not judged.evidence.reported:
        return NotMeasured("no sample survived the audited attack, so none was attacked again")
    if not len(judged.evidence.attempts):
        how = how_to_run(judged.evidence, "twins")
        return NotMeasured("no survivor was attacked again", how)
    return None


def _build(judged: JudgedRun) -> SectionContent | NotMeasured:
    missing = why_no_attempts(judged)
    if missing is not None:
        return missing
    rows = _rows(judged)
    best = min(rows, key=lambda row: row.share)
    figure = interval_chart(
        FigureText(
            "twins",
            "Robust accuracy after each attempt",
            f"{percent(rows[0].share)} after the audited attack, down to {percent(best.share)} "
            f"after: {best.name}.",
            "Each attempt attacks only the survivors of the audited attack, within the same "
            "budget. Some attack a twin: a copy of the model that makes the same decisions and is "
            "easier to attack. What fools it also fools the model, and this was verified for every "
            "example. Where a plain search fools few samples and an attack on a twin many, the "
            "model's gradient misled the attack, and the model is less robust than reported. "
            "Whiskers are exact 95% intervals.",
        ),
        "remaining robust accuracy, share of all samples",
        rows,
    )
    data = {row.name: {"accuracy": row.share, "interval": list(row.interval)} for row in rows}
    return SectionContent((figure,), intro=_scale_sentence(judged), data=data)


def _scale_sentence(judged: JudgedRun) -> str:
    scale, measure = judged.run.request.logit_scale, judged.sharpness
    median = judged.summary[f"median_{measure.column}_clean"]
    sentences = [f"The run multiplies the model's logits by {scale:g}."] if scale != 1.0 else []
    if median is not None:
        sentences.append(
            f"The median {measure.log_name} of clean images is {number(median)}. The lower it "
            "is, the more confident is the model and the smaller is the gradient of cross-entropy."
        )
    return " ".join(sentences)


def _rows(judged: JudgedRun) -> list[IntervalRow]:
    evidence = judged.evidence
    n, survivors = evidence.n, len(evidence.standing)

    def row(name: str, tone: Tone, fooled: int, note: str) -> IntervalRow:
        left = survivors - fooled
        return IntervalRow(name, tone, left / n, interval(left, n), note)

    everyone = f"{counted(survivors, 'survivor')} of {n:,} samples"
    attempts = []
    for name, table in evidence.attempts.groupby("attempt", sort=False):
        tried = set(table["sample"].astype(int)) & evidence.standing
        fooled = set(table.loc[table["fooled"].astype(bool), "sample"].astype(int)) & tried
        tone: Tone = "other" if table["family"].iloc[0] in CHANCE else "fooled"
        note = f"{counted(len(fooled), 'survivor')} of {len(tried):,} tried fooled"
        attempts.append(row(attempt_name(str(name)), tone, len(fooled), note))
    return [
        row("audited attack", "survived", 0, everyone),
        *sorted(attempts, key=lambda row: -row.share),
        row("worst case (corrected)", "ink", len(evidence.fooled), everyone),
    ]


TWINS = Section("other-logits", "Attacks on the survivors", _build)
