"""A summary in Markdown, short enough for a comment on a pull request."""

from __future__ import annotations

import re

from flatguard.checks.finding import TRUST, needs_trust
from flatguard.reporting.findings import finding_cards
from flatguard.reporting.judged_run import JudgedRun
from flatguard.reporting.report_page import headlines
from flatguard.reporting.text import between, percent, visible

_SPECIAL = re.compile(r"([\\`*_\[\]<>#|!~@&$]|:(?=//))")
"""Characters that Markdown or its renderers may interpret, such as links and user names."""

_ENTITIES = {"<": "&lt;", ">": "&gt;", "&": "&amp;", "@": "&#64;", "|": "&#124;", ":": "&#58;"}
"""Not every renderer accepts a backslash before these."""


def markdown_summary(judged: JudgedRun, title: str = "") -> str:
    """Verdict, numbers, findings and next steps; `title` precedes the verdict in the heading."""
    verdict = judged.verdict
    lines = [
        *answer_lines(judged, title),
        "",
        "| check | | finding | measured |",
        "|---|---|---|---|",
    ]
    for card in finding_cards(verdict):
        cells = (card.finding.check, card.status, card.finding.summary, card.measured)
        lines.append(f"| {' | '.join(escape_markdown(cell) for cell in cells)} |")
    lines += ["", *(f"- Next: {escape_markdown(step)}" for step in verdict.next)]
    if needs_trust(verdict.next):
        lines += ["", TRUST]
    return "\n".join(lines)


def answer_lines(judged: JudgedRun, title: str = "") -> list[str]:
    """The verdict, what was evaluated, and the numbers with their intervals."""
    manifest, verdict = judged.run.manifest, judged.verdict
    heading = f"{title}: {verdict.sentence}" if title else verdict.sentence
    subject = (
        f"{manifest.target.name}, {manifest.request.attack} within {judged.budget}, "
        f"{len(judged.samples):,} images from {manifest.data.name}"
    )
    return [
        f"### {escape_markdown(heading)}",
        "",
        escape_markdown(subject),
        "",
        *(f"{escape_markdown(found.sentence)}\n" for found in verdict.explanations),
        "| accuracy | | 95% interval |",
        "|---|---|---|",
        *(
            f"| {number.name} | {percent(number.share)} | {between(number.interval)} |"
            for number in headlines(judged)
        ),
    ]


def escape_markdown(text: str) -> str:
    """Text on one line that Markdown shows unchanged, inside a table or outside."""
    one_line = " ".join(visible(text).split())
    return _SPECIAL.sub(lambda found: _ENTITIES.get(found[1], f"\\{found[1]}"), one_line)
