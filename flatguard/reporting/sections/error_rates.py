"""How often the tolerance decides wrongly, for this number of images."""

from __future__ import annotations

import numpy as np

from flatguard.checks.error_rates import ErrorRate, chance_of_pass
from flatguard.reporting.charts import Axis, ReferenceLine, Series, line_chart
from flatguard.reporting.figure import FigureText
from flatguard.reporting.judged_run import JudgedRun
from flatguard.reporting.sections.section import NotMeasured, Section, SectionContent
from flatguard.reporting.text import percent

_POINTS, _END = 60, 3.0
"""The curve goes to three times the tolerance."""


def _build(judged: JudgedRun) -> SectionContent | NotMeasured:
    n, tolerance = len(judged.samples), judged.verdict.tolerance
    if tolerance == 0:
        return NotMeasured("no overestimate is accepted: the tolerance is 0")
    curve = [
        ErrorRate(overestimate=float(gap), passes=chance_of_pass(n, tolerance, float(gap)))
        for gap in np.linspace(0.0, min(_END * tolerance, 1.0), _POINTS + 1)
    ]
    ticks = tuple(
        (part * tolerance, percent(part * tolerance)) for part in range(4) if part * tolerance <= 1
    )
    said = [
        f"{percent(rate.overestimate)} passes in {percent(rate.passes)}"
        for rate in judged.verdict.error_rates
        if rate.overestimate > tolerance
    ]
    intro = f"With {n} images a true overestimate of {', one of '.join(said)} of samples."
    figure = line_chart(
        FigureText(
            "wrong-decisions",
            "Chance to pass against the true overestimate",
            intro,
            "Exact binomial probabilities, for images that are a random sample. What the checks "
            "themselves miss is not included.",
        ),
        Axis("true overestimate, of all images one could draw", is_share=True, labels=ticks),
        Axis("chance to pass", is_share=True),
        [
            Series(
                "passes", "ink", [one.overestimate for one in curve], [one.passes for one in curve]
            )
        ],
        [ReferenceLine(tolerance, f"tolerance {percent(tolerance)}")],
    )
    data = {"curve": [one.model_dump() for one in curve]}
    return SectionContent((figure,), intro=intro, data=data)


ERROR_RATES = Section("error-rates", "Error rates of the decision", _build)
