"""A Markdown summary, short enough for a pull request's comment."""

from __future__ import annotations

import re

from flatguard.checks.finding import TRUST, needs_trust
from flatguard.reporting.findings import WORDS, cards, measured
from flatguard.reporting.html import headlines
from flatguard.reporting.material import Material
from flatguard.reporting.text import visible

MEANING = re.compile(r"([\\`*_\[\]<>#|!~@&$]|:(?=//))")
"""Characters that may mean something in Markdown, or name somebody."""

ENTITIES = {"<": "&lt;", ">": "&gt;", "&": "&amp;", "@": "&#64;", "|": "&#124;", ":": "&#58;"}
"""A backslash does not stop these everywhere."""


def markdown(material: Material, title: str = "") -> str:
    """Verdict, numbers, findings, and what to do; `title` stands before the verdict."""
    manifest, verdict = material.run.manifest, material.verdict
    lines = [
        f"### {plain(f'{title}: {verdict.sentence}' if title else verdict.sentence)}",
        "",
        f"{plain(manifest.target.name)}, {plain(manifest.request.attack)} within "
        f"{plain(str(material.budget))}, {len(material.samples):,} images from "
        f"{plain(manifest.data.name)}",
        "",
        "| accuracy | | 95% interval |",
        "|---|---|---|",
        *(f"| {line.name} | {line.value} | {line.interval} |" for line in headlines(material)),
        "",
        "| check | | what was found | measured |",
        "|---|---|---|---|",
    ]
    for card in cards(verdict):
        finding = card.finding
        cells = (
            finding.check, WORDS[finding.status], finding.summary, measured(finding),
        )  # fmt: skip
        lines.append(f"| {' | '.join(plain(cell) for cell in cells)} |")
    lines += ["", *(f"- Next: {plain(step)}" for step in verdict.next)]
    if needs_trust(verdict.next):
        lines += ["", TRUST]
    return "\n".join(lines)


def plain(text: str) -> str:
    """Text that Markdown shows as it is, on one line, in a table or out of it."""
    one_line = " ".join(visible(text).split())
    return MEANING.sub(lambda found: ENTITIES.get(found[1], f"\\{found[1]}"), one_line)
