"""A run and a verdict in a notebook: the answer, the numbers with their intervals, the figure.

Both read what is stored and measure nothing. The style sheet holds for this element alone, and
colours are legible on light and dark; where a viewer removes it, the text and the table stay.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from markupsafe import Markup

from flatguard.checks.finding import advice
from flatguard.checks.verdict import VERDICT, Verdict, verdict_of
from flatguard.environment.system import quoted
from flatguard.errors import FlatguardError
from flatguard.reporting.findings import finding_cards
from flatguard.reporting.judged_run import JudgedRun, check_summary
from flatguard.reporting.report import report_files
from flatguard.reporting.report_page import (
    VERDICT_TONES,
    Headline,
    headlines,
    number_line,
    verdict_headlines,
)
from flatguard.reporting.templating import render
from flatguard.reporting.text import counted
from flatguard.runs.run import Run


def verdict_html(verdict: Verdict) -> str:
    """A verdict as HTML."""
    return _answer(verdict, verdict_headlines(verdict), verdict.next)


def run_html(run: Run) -> str:
    """A run as HTML; one that was not judged yet, or is damaged, says so.

    Cost: it reads the verdict and the summary, and compares no checksums.
    """
    try:
        if not (run.path / VERDICT).is_file():
            return _unjudged(run)
        verdict = verdict_of(run)
        check_summary(run)
        judged = JudgedRun(run, verdict, run.summary)
        subject = (
            f"{run.manifest.target.name}, {run.request.attack} within {judged.budget}, "
            f"{counted(judged.summary['n_examples'], 'image')} from {run.manifest.data.name}"
            + ("" if run.complete else ", incomplete")
        )
        steps = [advice(step, run.storage) for step in verdict.next]
        page = report_files(run).html
        place = str(page if page.is_file() else run.path)
        return _answer(verdict, headlines(judged), steps, subject, place)
    except FlatguardError as error:
        return _html(message=str(error), answer=None)


def _unjudged(run: Run) -> str:
    done, planned = len(run.blocks), len(run.manifest.blocks)
    message = (
        f"{run.storage}: {done} of {counted(planned, 'block')} attacked, not judged yet. "
        f"flatguard resume {quoted(run.storage)}{run.request.consent} goes on."
    )
    return _html(message=message, answer=None)


def _answer(
    verdict: Verdict,
    numbers: Sequence[Headline],
    steps: Sequence[str],
    subject: str = "",
    place: str = "",
) -> str:
    word, _, rest = verdict.sentence.partition(":")
    return _html(
        message="",
        answer=verdict,
        tone=VERDICT_TONES[verdict.verdict],
        word=word,
        rest=f":{rest}" if rest else "",
        subject=subject,
        conclusion=verdict.conclusion,
        numbers=numbers,
        number_line=number_line(numbers),
        cards=finding_cards(verdict),
        steps=steps[:3],
        place=place,
    )


def _html(**values: Any) -> str:
    file = files("flatguard.reporting") / "templates" / "notebook.css"
    style = Markup(file.read_text("utf-8"))
    return str(render("notebook.html.j2", style=style, **values))
