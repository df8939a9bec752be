"""Each check's finding as a card: value against threshold, why it matters, what to do."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from flatguard.checks.finding import Finding, Status
from flatguard.checks.verdict import Verdict
from flatguard.reporting.charts import dot
from flatguard.reporting.svg import Scale, drawing, line, path, path_of
from flatguard.reporting.text import between, number, percent

WHY = {
    "discrepancy": "A twin decides exactly as the target does. If it falls where the target "
    "stood, the target was not robust there: its attack was blind.",
    "gradient-truth": "Gradient attacks go where the gradient points. If it is missing, zero or "
    "untrue, that they fail says nothing about the model.",
    "scale-free-loss": "Cross-entropy's gradient fades with confidence, the margin's does not. "
    "Survivors that fall to the margin survived for the loss's sake.",
    "determinism": "A model that answers differently each time misleads single gradients and "
    "single passes; its samples may survive by luck.",
    "black-box": "A search that asks for no gradient knows less. If it finds more, the gradient "
    "was hiding something.",
    "more-budget": "An attack that would find more with more steps was stopped too early; in a "
    "ball that holds every image, it must find everything.",
    "surrogate-transfer": "Examples made on another model should be weaker than the target's own. "
    "Where they find more, its own gradients led astray.",
    "basin": "An attack whose loss never moved has tested nothing, however many steps it took.",
}
"""By the check's name; a check from elsewhere goes without."""

WORDS: dict[Status, str] = {
    "fail": "Failed", "warn": "Warning", "not-run": "Not run", "pass": "Passed",
}  # fmt: skip
ORDER: tuple[Status, ...] = ("fail", "warn", "not-run", "pass")
WIDTH, HEIGHT = 220.0, 22.0


@dataclass(frozen=True)
class Card:
    """A finding as it is shown."""

    finding: Finding
    word: str
    why: str
    measured: str
    gauge: Markup | None


def cards(verdict: Verdict) -> list[Card]:
    """All findings, the gravest first."""
    findings = sorted(verdict.findings, key=lambda finding: ORDER.index(finding.status))
    return [_card(finding) for finding in findings]


def not_run(verdict: Verdict) -> list[Finding]:
    """The checks that did not run."""
    return [finding for finding in verdict.findings if finding.status == "not-run"]


def _card(finding: Finding) -> Card:
    return Card(
        finding, WORDS[finding.status], WHY.get(finding.check, ""), measured(finding),
        _gauge(finding),
    )  # fmt: skip


def is_share(finding: Finding) -> bool:
    """Whether its value is a share: those have an interval, or a threshold to compare with."""
    return finding.interval is not None or finding.threshold is not None


def measured(finding: Finding) -> str:
    """Value, interval and threshold in words."""
    if finding.value is None:
        return "not measured" if finding.status == "not-run" else "no single number"
    write = percent if is_share(finding) else number
    pieces = [write(finding.value)]
    if finding.interval is not None:
        pieces.append(f"95% interval {between(finding.interval)}")
    if finding.threshold is not None:
        pieces.append(f"threshold {write(finding.threshold)}")
    return ", ".join(pieces)


def _gauge(finding: Finding) -> Markup | None:
    """The value on a line from 0 to 100%, with its interval and the threshold."""
    if finding.value is None or not is_share(finding):
        return None
    scale, middle = Scale(0.0, 1.0, 5.0, WIDTH - 5.0), HEIGHT / 2
    parts = [line(scale(0.0), middle, scale(1.0), middle, "track")]
    if finding.threshold is not None:
        x = scale(finding.threshold)
        parts.append(line(x, 2, x, HEIGHT - 2, "rule"))
    if finding.interval is not None:
        ends = [(scale(end), middle) for end in finding.interval]
        parts.append(path(path_of(ends), f"whisker {finding.status}"))
    x = scale(min(max(finding.value, 0.0), 1.0))
    parts.append(path(dot(x, middle, 5.0), f"dot {finding.status}"))
    return drawing(WIDTH, HEIGHT, measured(finding), parts)
