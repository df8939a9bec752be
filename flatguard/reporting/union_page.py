"""The union of several threats as a page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flatguard.reporting.figure import Figure, FigureText
from flatguard.reporting.interval_chart import IntervalRow, interval_chart
from flatguard.reporting.templating import render_page
from flatguard.reporting.text import counted, percent

if TYPE_CHECKING:
    from flatguard.reporting.union import Union


def union_page(union: Union) -> str:
    """The union as one self-contained page, with a link to each run's own report."""
    return render_page("union.html.j2", union=union, figure=_chart(union))


def _chart(union: Union) -> Figure:
    from flatguard.checks.statistics import interval

    note = counted(union.samples, "sample")

    def row(name: str, share: float) -> IntervalRow:
        around = interval(round(share * union.samples), union.samples)
        return IntervalRow(name, "survived", share, around, note)

    rows = [row(one.threat, one.corrected_robust_accuracy) for one in union.members]
    rows.append(row("all of them", union.corrected_robust_accuracy))
    return interval_chart(
        FigureText(
            "union",
            "Corrected robust accuracy under each threat and under all",
            f"{percent(union.corrected_robust_accuracy)} of the samples withstand every threat.",
            "A sample counts under all threats only where it withstands each of them. Whiskers are "
            "exact 95% intervals.",
        ),
        "corrected robust accuracy",
        rows,
    )
