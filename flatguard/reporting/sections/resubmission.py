"""What is left of a randomised target if an attacker may show an example again."""

from __future__ import annotations

from flatguard.checks.resubmission import resubmissions
from flatguard.reporting.figure import FigureText
from flatguard.reporting.interval_chart import IntervalRow, interval_chart
from flatguard.reporting.judged_run import JudgedRun
from flatguard.reporting.sections.section import NotMeasured, Section, SectionContent
from flatguard.reporting.text import counted, percent


def _build(judged: JudgedRun) -> SectionContent | NotMeasured:
    found = resubmissions(judged.evidence)
    if not found:
        return NotMeasured("no answer changes from call to call, or no fresh draws were taken")
    n = judged.evidence.n
    first, last = found[0], found[-1]
    intro = (
        f"{percent(first.accuracy)} are right where each best example is shown once, and "
        f"{percent(last.accuracy)} where an attacker may show it {last.tries} times."
    )
    figure = interval_chart(
        FigureText(
            "resubmission",
            "Accuracy where an example may be shown again",
            intro,
            "One wrong answer is a success. Fresh draws, which did not choose the examples; the "
            "interval is over the choice of the images.",
        ),
        "accuracy",
        [
            IntervalRow(
                f"shown {one.tries}×", "survived", one.accuracy, one.interval,
                counted(n, "sample"),
            )
            for one in found
        ],
    )  # fmt: skip
    data = {"resubmission": [one.model_dump() for one in found]}
    return SectionContent((figure,), intro=intro, data=data)


RESUBMISSION = Section("resubmission", "Resubmission", _build)
