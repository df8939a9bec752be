"""Each check's finding as a card: the value, its threshold, why it matters, what to do."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from flatguard.checks.finding import Finding, Status
from flatguard.checks.registry import load_checks
from flatguard.checks.verdict import Verdict
from flatguard.reporting.interval_chart import interval_mark
from flatguard.reporting.svg import Scale, drawing, line
from flatguard.reporting.text import between, number, percent

STATUS_WORDS: dict[Status, str] = {
    "fail": "Failed", "warn": "Warning", "not-run": "Not run", "pass": "Passed",
}  # fmt: skip
"""Statuses as they are shown; the most serious comes first."""

_WIDTH, _HEIGHT = 220.0, 22.0


@dataclass(frozen=True)
class Card:
    """A finding as the page shows it."""

    finding: Finding
    status: str
    reason: str
    measured: str
    gauge: Markup | None


def finding_cards(verdict: Verdict) -> list[Card]:
    """All findings, the most serious first."""
    order = list(STATUS_WORDS)
    reasons = {check.name: check.why for check in load_checks()}
    return [
        Card(
            finding,
            STATUS_WORDS[finding.status],
            reasons.get(finding.check, ""),
            measured_text(finding),
            _gauge(finding),
        )
        for finding in sorted(verdict.findings, key=lambda finding: order.index(finding.status))
    ]


def measured_text(finding: Finding) -> str:
    """Value, interval and threshold in words."""
    if finding.value is None:
        return "not measured" if finding.status == "not-run" else "no single number"
    write = percent if _is_share(finding) else number
    pieces = [write(finding.value)]
    if finding.interval is not None:
        pieces.append(f"95% interval {between(finding.interval)}")
    if finding.threshold is not None:
        pieces.append(f"threshold {write(finding.threshold)}")
    return ", ".join(pieces)


def _is_share(finding: Finding) -> bool:
    """Whether its value is a share: only shares have an interval or a threshold."""
    return finding.interval is not None or finding.threshold is not None


def _gauge(finding: Finding) -> Markup | None:
    """The value on a line from 0 to 100%, with its interval and the threshold."""
    if finding.value is None or not _is_share(finding):
        return None
    scale, y = Scale(0.0, 1.0, 5.0, _WIDTH - 5.0), _HEIGHT / 2
    parts = [line(scale(0.0), y, scale(1.0), y, "track")]
    if finding.threshold is not None:
        x = scale(finding.threshold)
        parts.append(line(x, 2, x, _HEIGHT - 2, "rule"))
    parts.extend(interval_mark(scale, y, finding.value, finding.interval, finding.status, 5.0))
    return drawing(_WIDTH, _HEIGHT, measured_text(finding), parts)
