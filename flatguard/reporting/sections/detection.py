"""What a detector flags, and why it is a diagnostic and no defence."""

from __future__ import annotations

import numpy as np

from flatguard.detection.flagging import Detection, Kinds, distances_of, scores_of
from flatguard.reporting.attempt_charts import Heap, histogram
from flatguard.reporting.charts import Axis, Rule, Words
from flatguard.reporting.figure import Figure, Table, Tone
from flatguard.reporting.judged_run import JudgedRun
from flatguard.reporting.sections.section import Drawn, NotMeasured, Section
from flatguard.reporting.templating import render
from flatguard.reporting.text import between, counted, number, percent

NAMES = {
    "clean": "clean images",
    "clean_right": "of them, right",
    "clean_wrong": "of them, wrong without an attack",
    "successful": "successful adversarial examples",
    "failed": "failed adversarial examples",
}
DRAWN: dict[str, Tone] = {"clean": "clean", "successful": "fell", "failed": "survived"}
"""The kinds that are drawn; the others are parts of them."""


def _draw(judged: JudgedRun) -> Drawn | NotMeasured:
    detection = judged.detection
    if detection is None:
        return NotMeasured(
            "no detector was given; flatguard detect fit makes one",
            "flatguard audit RUN --detector FILE",
        )
    html = render("detection.html.j2", table=_table(detection.kinds), facts=_facts(detection))
    said = [f"A diagnostic, not a defence: {detection.adaptive_evidence}."]
    figures = _figures(judged, detection)
    if detection.in_sample:
        said.append(f"{detection.in_sample_warning}.")
    if not figures:
        said.append("No sample has a log κ to be drawn.")
    return Drawn(figures, html, " ".join(said), detection.model_dump(mode="json"))


def _figures(judged: JudgedRun, detection: Detection) -> tuple[Figure, ...]:
    """log κ with its thresholds; per class, where a threshold is no one place, how far inside."""
    if detection.per_class:
        values, axis = distances_of(judged.run, detection), Axis("log κ inside its thresholds")
        rules = [Rule(0.0, "flagged to the left")]
        caption = (
            "How far log κ lies inside the thresholds of the class that the model predicts, in "
            "nats. Below 0 a sample is flagged."
        )
    else:
        values, axis = scores_of(judged.run), Axis("log κ")
        rules = _rules(detection)
        caption = "Samples beyond the dashed lines are flagged."
    heaps = [
        Heap(f"{NAMES[name]} ({len(values[name]):,})", tone, values[name])
        for name, tone in DRAWN.items()
        if np.isfinite(values[name]).any()
    ]
    if not heaps:
        return ()
    told = "; ".join(f"{heap.name}: {number(_median(heap.values))}" for heap in heaps)
    words = Words(
        "detector-kappa",
        "What the detector sees",
        f"Histogram of {axis.name}. Medians: {told}. {_told(detection.kinds)}",
        f"{caption} Converged attacks end below the clean range and weak ones above it. Whatever "
        "lies within passes.",
    )
    return (histogram(words, axis, heaps, rules),)


def _rules(detection: Detection) -> list[Rule]:
    found = []
    for kept in detection.thresholds.values():
        for value, name in ((kept.lower, "lower threshold"), (kept.upper, "upper threshold")):
            if value is not None:
                found.append(Rule(value, name))
    return found


def _told(kinds: Kinds) -> str:
    return (
        f"Flagged are of clean images {kinds.clean}, of successful examples {kinds.successful}, "
        f"of failed ones {kinds.failed}."
    )


def _median(values: np.ndarray) -> float | None:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else None


def _table(kinds: Kinds) -> Table:
    rows = []
    for name, title in NAMES.items():
        found = getattr(kinds, name)
        share = ("none", "") if found.share is None else (
            percent(found.share), between(found.interval)
        )  # fmt: skip
        rows.append(
            (title, f"{found.samples:,}", f"{found.flagged:,}", *share, f"{found.unmeasured:,}")
        )
    head = ("", "samples", "flagged", "share", "95% interval", "of them without log κ")
    return Table(head, tuple(rows))


def _facts(detection: Detection) -> list[tuple[str, str]]:
    asked = "no rate: a stump, fitted on clean and adversarial images"
    if detection.alpha is not None:
        asked = f"{percent(detection.alpha)} false positives, {detection.side}"
        asked += ", per predicted class" if detection.per_class else ""
        asked += "" if detection.delta is None else f", in all but {detection.delta:g} of draws"
    data = "" if detection.data is None else f" of {detection.data.name}"
    facts = [
        ("calibrated for", asked),
        ("calibrated on", f"{counted(detection.calibration_scores, 'clean image')}{data}"),
        ("fitted on", detection.model),
        ("detector, SHA-256", detection.detector_sha256),
    ]
    if detection.outside_budget:
        facts.append(("outside the budget", f"{detection.outside_budget:,}; counted nowhere here"))
    return facts


DETECTION = Section("detection", "Detection", _draw)
