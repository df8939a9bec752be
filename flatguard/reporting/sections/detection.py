"""What a detector flags, and why it is a diagnostic and not a defence."""

from __future__ import annotations

import numpy as np

from flatguard.detection.flagging import Detection, Kinds, distances_of, scores_of
from flatguard.geometry.measures import KAPPA
from flatguard.reporting.charts import Axis, ReferenceLine
from flatguard.reporting.figure import Figure, FigureText, Table, Tone
from flatguard.reporting.histogram import Distribution, histogram
from flatguard.reporting.judged_run import JudgedRun
from flatguard.reporting.sections.section import NotMeasured, Section, SectionContent
from flatguard.reporting.summaries import finite_median
from flatguard.reporting.templating import render
from flatguard.reporting.text import between, counted, number, percent

_NAMES = {
    "clean": "clean images",
    "clean_right": "clean images, classified correctly",
    "clean_wrong": "clean images, misclassified without an attack",
    "successful": "adversarial examples that fool the model",
    "failed": "examples of the attack that do not fool it",
}
_SIDES = {"two-sided": "low and high scores", "low": "low scores", "high": "high scores"}
_SHOWN: dict[str, Tone] = {"clean": "clean", "successful": "fooled", "failed": "survived"}
"""The kinds in the histogram; the others are subsets of them."""


def _build(judged: JudgedRun) -> SectionContent | NotMeasured:
    detection, name = judged.detection, judged.sharpness.log_name
    if detection is None:
        return NotMeasured(
            "no detector was given; flatguard detect fit makes one",
            "flatguard audit RUN --detector FILE",
        )
    html = render("detection.html.j2", table=_table(detection.kinds), facts=_facts(detection))
    figures = _figures(judged, detection)
    evidence = detection.adaptive_evidence
    notes = [f"A detector is a diagnostic, not a defence. {evidence[0].upper()}{evidence[1:]}."]
    if detection.in_sample:
        notes.append(f"{detection.in_sample_warning}.")
    if not figures:
        notes.append(f"There is no figure, because {name} was measured for no sample.")
    return SectionContent(figures, html, " ".join(notes), detection.model_dump(mode="json"))


def _figures(judged: JudgedRun, detection: Detection) -> tuple[Figure, ...]:
    """The score with the thresholds; per class, the distance to the class's own thresholds."""
    name = judged.sharpness.log_name
    if detection.per_class:
        values, axis = distances_of(judged.run, detection), Axis(f"{name} inside its thresholds")
        lines = [ReferenceLine(0.0, "flagged to the left")]
        caption = (
            f"How far {name} is inside the thresholds of the predicted class. An image below 0 is "
            "outside, and flagged."
        )
    else:
        values, axis = scores_of(judged.run), Axis(name)
        lines = _threshold_lines(detection)
        caption = "Images outside the dashed lines are flagged."
    groups = [
        Distribution(f"{_NAMES[name]} ({len(values[name]):,})", tone, values[name])
        for name, tone in _SHOWN.items()
        if np.isfinite(values[name]).any()
    ]
    if not groups:
        return ()
    medians = "; ".join(f"{group.name}: {number(finite_median(group.values))}" for group in groups)
    kinds = detection.kinds
    words = FigureText(
        "detector-kappa" if judged.sharpness is KAPPA else "detector-sharpness",
        "Scores and thresholds of the detector",
        f"Histogram of {axis.name}. Medians: {medians}. Flagged: clean images {kinds.clean}, "
        f"examples that fool the model {kinds.successful}, examples that do not {kinds.failed}.",
        f"{caption} An attack that goes on until the model is certain of a wrong answer ends below "
        "the range of clean images; one that stops at the decision boundary ends above it. What is "
        "within the range is not flagged, adversarial or not.",
    )
    return (histogram(words, axis, groups, lines),)


def _threshold_lines(detection: Detection) -> list[ReferenceLine]:
    return [
        ReferenceLine(value, name)
        for bounds in detection.thresholds.values()
        for value, name in ((bounds.lower, "lower threshold"), (bounds.upper, "upper threshold"))
        if value is not None
    ]


def _table(kinds: Kinds) -> Table:
    rows = []
    for name, title in _NAMES.items():
        kind = getattr(kinds, name)
        share, interval = "none", ""
        if kind.share is not None:
            share, interval = percent(kind.share), between(kind.interval)
        counts = f"{kind.samples:,}", f"{kind.flagged:,}"
        rows.append((title, *counts, share, interval, f"{kind.unmeasured:,}"))
    head = (
        "",
        "samples",
        "flagged",
        "share",
        "95% interval",
        f"flagged without {kinds.clean.score}",
    )
    return Table(head, tuple(rows))


def _facts(detection: Detection) -> list[tuple[str, str]]:
    rate = "no rate: one threshold, learnt from clean and adversarial images (a stump)"
    if detection.alpha is not None:
        rate = f"{percent(detection.alpha)} of clean images flagged (false positives)"
        rate += f"; {_SIDES[detection.side]} are flagged"
        rate += "; thresholds for each predicted class" if detection.per_class else ""
        if detection.delta is not None:
            rate += f"; more is flagged in at most {percent(detection.delta)} of calibrations"
    data = "" if detection.data is None else f" of {detection.data.name}"
    facts = [
        ("calibrated for", rate),
        ("calibrated on", f"{counted(detection.calibration_scores, 'clean image')}{data}"),
        ("fitted on", detection.model),
        ("detector, SHA-256", detection.detector_sha256),
    ]
    if detection.outside_budget:
        excluded = f"{counted(detection.outside_budget, 'example')}, not counted in this section"
        facts.append(("outside the budget", excluded))
    return facts


DETECTION = Section("detection", "Detection", _build)
