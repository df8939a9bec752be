"""Pages: one file each, that opens from disk, asks for nothing, and runs one script of ours.

The page's own policy forbids everything but its style sheet and its script, both by hash, and
images in data URIs.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any

from markupsafe import Markup

from flatguard.checks.finding import TRUST, consenting, names_code, needs_trust
from flatguard.checks.verdict import Verdict, Word
from flatguard.reporting.charts import dot
from flatguard.reporting.findings import cards, not_run
from flatguard.reporting.judged_run import JudgedRun
from flatguard.reporting.sections.section import Drawn, NotMeasured, Section
from flatguard.reporting.svg import Scale, drawing, line, path, path_of, text
from flatguard.reporting.templating import render, source
from flatguard.reporting.text import between, counted, percent

TONES: dict[Word, str] = {
    "vulnerable": "fail", "consistent": "pass", "overestimated": "fail", "masked": "fail",
    "inconclusive": "warn",
}  # fmt: skip
GIST: dict[Word, str] = {
    "vulnerable": "The model has no robustness worth the name in this budget.",
    "consistent": "Nothing that was tried speaks against the reported number.",
    "overestimated": "Do not cite the reported number: stronger attempts find more, though no "
    "mechanism that hides gradients explains it.",
    "masked": "Do not cite the reported number: the attack was blind, and the model is not that "
    "robust.",
    "inconclusive": "Do not cite the reported number yet: the checks that would decide did not "
    "run, or they disagree.",
}
TOLERATED = (
    "Cite the corrected number: the reported one is within the tolerance of it, but a check failed."
)
LINE_WIDTH, LINE_HEIGHT = 460.0, 84.0


@dataclass(frozen=True)
class Piece:
    """A section with what came of it."""

    section: Section
    drawn: Drawn


@dataclass(frozen=True)
class Missing:
    """A section with nothing measured."""

    section: Section
    reason: NotMeasured


@dataclass(frozen=True)
class Drawing:
    """All sections of a report."""

    pieces: tuple[Piece, ...]
    missing: tuple[Missing, ...]


@dataclass(frozen=True)
class Headline:
    """A number with its interval, at the head of the page."""

    name: str
    tone: str
    share: float
    bounds: tuple[float, float]

    @property
    def value(self) -> str:
        """As it is shown."""
        return percent(self.share)

    @property
    def interval(self) -> str:
        """As it is shown."""
        return between(self.bounds)


def draw_sections(judged: JudgedRun, sections: Sequence[Section]) -> Drawing:
    """Let every section draw; what has nothing to show is listed."""
    pieces, missing = [], []
    needed = names_code(judged.run.request)
    for section in sections:
        found = section.draw(judged)
        if isinstance(found, Drawn):
            pieces.append(Piece(section, replace(found, intro=consenting(found.intro, needed))))
            continue
        how = None if found.how is None else consenting(found.how, needed)
        missing.append(Missing(section, replace(found, how=how)))
    return Drawing(tuple(pieces), tuple(missing))


def report_page(judged: JudgedRun, drawing: Drawing) -> str:
    """The report as one self-contained page."""
    verdict = judged.verdict
    word, _, rest = verdict.sentence.partition(":")
    numbers = headlines(judged)
    head = _head(judged) | {"word": word, "rest": f":{rest}" if rest else ""}
    return page(
        "report.html.j2",
        verdict=verdict,
        tone=TONES[verdict.verdict],
        gist=gist_of(verdict),
        head=head,
        numbers=numbers,
        line=number_line(numbers),
        cards=cards(verdict),
        unrun=not_run(verdict),
        trust=TRUST if needs_trust(verdict.next) else None,
        pieces=drawing.pieces,
        missing=drawing.missing,
        version=version("flatguard"),
    )


def gist_of(verdict: Verdict) -> str:
    """What to make of it, in a sentence."""
    failed = [finding.check for finding in verdict.findings if finding.status == "fail"]
    if verdict.verdict == "consistent" and failed:
        return TOLERATED
    return GIST[verdict.verdict]


def page(template: str, **values: Any) -> str:
    """A page from its template, with style, script and the policy that allows them alone."""
    style, script = source("style.css"), source("report.js")
    return render(
        template,
        style=Markup(style),
        script=Markup(script),
        style_hash=_hash(style),
        script_hash=_hash(script),
        **values,
    )


def _hash(content: str) -> str:
    digest = hashlib.sha256(content.encode("utf-8")).digest()
    return f"sha256-{base64.b64encode(digest).decode('ascii')}"


def headlines(judged: JudgedRun) -> list[Headline]:
    """The numbers at the head: reported and corrected first, as the verdict has them."""
    summary, verdict = judged.summary, judged.verdict
    low, high = summary["robust_interval"]
    clean_low, clean_high = summary["clean_interval"]
    return [
        Headline("reported", "reported", verdict.robust_accuracy, (low, high)),
        Headline(
            "corrected, at most", "corrected", verdict.corrected_robust_accuracy,
            verdict.corrected_interval,
        ),
        Headline("too high by", "over", verdict.overestimate, verdict.overestimate_interval),
        Headline("clean", "clean", summary["clean_accuracy"], (clean_low, clean_high)),
    ]  # fmt: skip


def number_line(numbers: Sequence[Headline]) -> Markup:
    """Accuracies with their intervals on one line from 0 to 100%."""
    scale = Scale(0.0, 1.0, 14.0, LINE_WIDTH - 18.0)
    parts = []
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        parts.append(line(scale(share), 6, scale(share), LINE_HEIGHT - 18, "grid"))
        parts.append(text(scale(share), LINE_HEIGHT - 4, f"{share:.0%}", "tick middle"))
    shown = [number for number in numbers if number.tone != "over"]
    for index, number in enumerate(shown):
        y = 16.0 + 20.0 * index
        ends = [(scale(end), y) for end in number.bounds]
        parts.append(path(path_of(ends), f"whisker {number.tone}"))
        parts.append(path(dot(scale(number.share), y, 5.5), f"dot {number.tone}"))
    said = "; ".join(f"{n.name} {n.value}, 95% interval {n.interval}" for n in shown)
    return drawing(LINE_WIDTH, LINE_HEIGHT, f"Accuracies from 0 to 100%: {said}", parts)


def _head(judged: JudgedRun) -> dict[str, str]:
    run = judged.run
    incomplete = "" if run.complete else ", incomplete"
    scale = run.request.logit_scale
    return {
        "model": run.manifest.target.name + ("" if scale == 1.0 else f", logits × {scale:g}"),
        "attack": run.request.attack,
        "budget": str(judged.budget),
        "samples": counted(len(judged.samples), "image") + incomplete,
        "data": run.manifest.data.name,
        "created": run.manifest.created,
        "run": run.path.name,
    }
