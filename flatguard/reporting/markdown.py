"""A Markdown summary, short enough for a pull request's comment."""

from __future__ import annotations

import re

from flatguard.checks.finding import TRUST, needs_trust
from flatguard.reporting.findings import WORDS, cards, measured
from flatguard.reporting.judged_run import JudgedRun
from flatguard.reporting.report_page import headlines
from flatguard.reporting.text import visible

MEANING = re.compile(r"([\\`*_\[\]<>#|!~@&$]|:(?=//))")
"""Characters that may mean something in Markdown, or name somebody."""

ENTITIES = {"<": "&lt;", ">": "&gt;", "&": "&amp;", "@": "&#64;", "|": "&#124;", ":": "&#58;"}
"""A backslash does not stop these everywhere."""


def markdown_summary(judged: JudgedRun, title: str = "") -> str:
    """Verdict, numbers, findings, and what to do; `title` stands before the verdict."""
    manifest, verdict = judged.run.manifest, judged.verdict
    heading = f"{title}: {verdict.sentence}" if title else verdict.sentence
    subject = (
        f"{manifest.target.name}, {manifest.request.attack} within {judged.budget}, "
        f"{len(judged.samples):,} images from {manifest.data.name}"
    )
    lines = [
        f"### {escape_markdown(heading)}",
        "",
        escape_markdown(subject),
        "",
        "| accuracy | | 95% interval |",
        "|---|---|---|",
        *(f"| {line.name} | {line.value} | {line.interval} |" for line in headlines(judged)),
        "",
        "| check | | what was found | measured |",
        "|---|---|---|---|",
    ]
    for card in cards(verdict):
        finding = card.finding
        cells = (
            finding.check, WORDS[finding.status], finding.summary, measured(finding),
        )  # fmt: skip
        lines.append(f"| {' | '.join(escape_markdown(cell) for cell in cells)} |")
    lines += ["", *(f"- Next: {escape_markdown(step)}" for step in verdict.next)]
    if needs_trust(verdict.next):
        lines += ["", TRUST]
    return "\n".join(lines)


def escape_markdown(text: str) -> str:
    """Text that Markdown shows as it is, on one line, in a table or out of it."""
    one_line = " ".join(visible(text).split())
    return MEANING.sub(lambda found: ENTITIES.get(found[1], f"\\{found[1]}"), one_line)
