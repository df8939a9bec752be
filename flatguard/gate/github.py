"""The output for GitHub Actions: annotations on the log, and a step summary."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from flatguard.checks.verdict import Verdict
from flatguard.gate.outcome import Outcome, report_of
from flatguard.reporting.judged_run import JudgedRun
from flatguard.reporting.markdown import escape_markdown, markdown_summary
from flatguard.runs.run import Run

_SUMMARY = "GITHUB_STEP_SUMMARY"


@dataclass(frozen=True)
class Error:
    """An annotation: a title and the reason."""

    title: str
    text: str


def announce(summary: str, errors: Sequence[Error]) -> list[str]:
    """Add to the step summary, and return the annotations to print; nothing outside Actions."""
    file = os.environ.get(_SUMMARY)
    if not file:
        return []
    # The gate also works without the summary.
    with suppress(OSError), Path(file).open("a", encoding="utf-8") as stream:
        stream.write(summary + "\n\n")
    return [f"::error title={_property(error.title)}::{_data(error.text)}" for error in errors]


def errors_of(title: str, found: Sequence[Outcome]) -> list[Error]:
    """The outcomes that shut the gate; `title` is the config's name."""
    return [Error(f"{title} {outcome.label}", outcome.text) for outcome in found if outcome.shut]


def run_summary(title: str, run: Run, verdict: Verdict, found: Sequence[Outcome]) -> str:
    """A run in Markdown: the report's summary and the gate's outcomes."""
    pieces = [
        markdown_summary(JudgedRun(run, verdict, run.summary), title),
        f"Report: {escape_markdown(str(report_of(run)))}",
        *([table(found)] if found else []),
    ]
    return "\n\n".join(pieces)


def table(found: Sequence[Outcome]) -> str:
    """Outcomes as a Markdown table."""
    rows = ["| | gate | |", "|---|---|---|"]
    signs = {"passed": "✅", "allowed": "➖", "failed": "❌", "undecided": "❓"}
    for outcome in found:
        sign = f"{signs[outcome.status]} {outcome.status}"
        rows.append(f"| {sign} | `{outcome.label}` | {escape_markdown(outcome.headline)} |")
    return "\n".join(rows)


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
