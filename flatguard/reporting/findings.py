"""Each check's finding as a card: value against threshold, why it matters, what to do."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from flatguard.checks.finding import Finding, Status
from flatguard.checks.registry import load_checks
from flatguard.checks.verdict import Verdict
from flatguard.reporting.charts import dot
from flatguard.reporting.svg import Scale, drawing, line, path, path_of
from flatguard.reporting.text import between, number, percent

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
    why = {check.name: check.why for check in load_checks()}
    return [_card(finding, why.get(finding.check, "")) for finding in findings]


def not_run(verdict: Verdict) -> list[Finding]:
    """The checks that did not run."""
    return [finding for finding in verdict.findings if finding.status == "not-run"]


def _card(finding: Finding, why: str) -> Card:
    return Card(
        finding, WORDS[finding.status], why, measured(finding),
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
