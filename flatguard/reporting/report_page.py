"""The report as a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from flatguard.checks.finding import TRUST, needs_trust
from flatguard.checks.verdict import Verdict, Word
from flatguard.reporting.findings import finding_cards
from flatguard.reporting.interval_chart import interval_mark, percent_grid
from flatguard.reporting.judged_run import JudgedRun
from flatguard.reporting.sections.section import Sections
from flatguard.reporting.svg import Scale, drawing
from flatguard.reporting.templating import render_page
from flatguard.reporting.text import between, counted, percent

VERDICT_TONES: dict[Word, str] = {
    "vulnerable": "fail", "consistent": "pass", "overestimated": "fail", "masked": "fail",
    "inconclusive": "warn",
}  # fmt: skip
_WIDTH, _HEIGHT = 460.0, 84.0


@dataclass(frozen=True)
class Headline:
    """A number with its interval, at the head of the page; None where it has none."""

    name: str
    tone: str
    share: float
    interval: tuple[float, float] | None


def report_page(judged: JudgedRun, sections: Sections) -> str:
    """The report as one self-contained page."""
    run, verdict = judged.run, judged.verdict
    word, _, rest = verdict.sentence.partition(":")
    numbers = headlines(judged)
    scale = run.request.logit_scale
    return render_page(
        "report.html.j2",
        verdict=verdict,
        tone=VERDICT_TONES[verdict.verdict],
        word=word,
        rest=f":{rest}" if rest else "",
        conclusion=verdict.conclusion,
        model=run.manifest.target.name + ("" if scale == 1.0 else f", logits × {scale:g}"),
        attack=run.request.attack,
        budget=str(judged.budget),
        samples=counted(len(judged.samples), "image") + ("" if run.complete else ", incomplete"),
        data=run.manifest.data.name,
        created=run.manifest.created,
        run=run.path.name,
        numbers=numbers,
        number_line=number_line(numbers),
        cards=finding_cards(verdict),
        not_run=[finding for finding in verdict.findings if finding.status == "not-run"],
        trust=TRUST if needs_trust(verdict.next) else None,
        sections=sections.built,
        missing=sections.missing,
    )


def headlines(judged: JudgedRun) -> list[Headline]:
    """The numbers at the head of the page: reported and corrected first."""
    summary, verdict = judged.summary, judged.verdict
    return [
        *verdict_headlines(verdict, tuple(summary["robust_interval"])),
        Headline("clean", "clean", summary["clean_accuracy"], tuple(summary["clean_interval"])),
    ]


def verdict_headlines(
    verdict: Verdict, reported_interval: tuple[float, float] | None = None
) -> list[Headline]:
    """The numbers of a verdict; it has no interval of the reported one."""
    return [
        Headline("reported", "reported", verdict.robust_accuracy, reported_interval),
        Headline(
            "corrected (upper bound)", "corrected", verdict.corrected_robust_accuracy,
            verdict.corrected_interval,
        ),
        Headline("overestimate", "over", verdict.overestimate, verdict.overestimate_interval),
    ]  # fmt: skip


def number_line(numbers: Sequence[Headline]) -> Markup:
    """Accuracies with their intervals on one line from 0 to 100%."""
    scale = Scale(0.0, 1.0, 14.0, _WIDTH - 18.0)
    parts = [*percent_grid(scale, 6, _HEIGHT - 18, _HEIGHT - 4)]
    shown = [number for number in numbers if number.tone != "over"]
    for index, number in enumerate(shown):
        y = 16.0 + 20.0 * index
        parts.extend(interval_mark(scale, y, number.share, number.interval, number.tone, 5.5))
    values = "; ".join(
        f"{n.name} {percent(n.share)}, 95% interval {between(n.interval)}" for n in shown
    )
    return drawing(_WIDTH, _HEIGHT, f"Accuracies from 0 to 100%: {values}", parts)
