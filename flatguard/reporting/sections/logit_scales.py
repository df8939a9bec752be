"""The same search on the same decisions at other scales of the logits, and sharpness there."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from flatguard.checks.missing_evidence import how_to_run
from flatguard.geometry.measures import KAPPA, SharpnessMeasure
from flatguard.reporting.charts import Axis, Band, Series, line_chart
from flatguard.reporting.figure import Figure, FigureText
from flatguard.reporting.judged_run import JudgedRun
from flatguard.reporting.sections.section import NotMeasured, Section, SectionContent
from flatguard.reporting.summaries import GroupAccuracy, accuracy_by
from flatguard.reporting.text import counted, number, percent

_QUARTILES = [0.25, 0.5, 0.75]


def _build(judged: JudgedRun) -> SectionContent | NotMeasured:
    probe = judged.evidence.probe("scales")
    table = None if probe is None else probe.tables.get("scales")
    if probe is None or table is None or not len(table):
        return NotMeasured(
            "the search was not run at other scales of the logits",
            how_to_run(judged.evidence, "scales", "standard"),
        )
    own = accuracy_by(table["factor"], table["fooled"])
    best = accuracy_by(table["factor"], table["fooled_by_best"])
    measure = judged.sharpness
    sharpness = _quartiles(table, measure.column)
    figures = [_accuracy(own, best)]
    if len(sharpness):
        figures.append(_sharpness(sharpness, measure))
    medians = sharpness[0.5].to_dict() if len(sharpness) else {}
    samples, steps = int(table["sample"].nunique()), probe.facts.get("steps")
    data = {
        "steps": steps,
        "samples": samples,
        "scales": [
            {
                "factor": a.group,
                "left": a.share,
                "left_by_best": b.share,
                measure.column: medians.get(a.group),
            }
            for a, b in zip(own, best, strict=True)
        ],
    }
    intro = (
        f"{counted(samples, 'sample')} that the model classifies correctly, attacked for {steps} "
        "steps at each scale of the logits."
    )
    return SectionContent(tuple(figures), intro=intro, data=data)


def _axis(factors: list[float]) -> Axis:
    """Positions are decimal logarithms of the factors."""
    labels = tuple((math.log10(factor), f"× {factor:g}") for factor in factors)
    return Axis("factor of the target's logits", labels=labels)


def _accuracy(own: list[GroupAccuracy], best: list[GroupAccuracy]) -> Figure:
    factors = [one.group for one in own]
    x = [math.log10(factor) for factor in factors]
    own_shares, best_shares = ([one.share for one in found] for found in (own, best))
    return line_chart(
        FigureText(
            "scale-accuracy",
            "Robust accuracy at each scale of the logits",
            f"After the same search, the accuracy is {percent(min(own_shares))} to "
            f"{percent(max(own_shares))}, depending on the scale. After the examples of the best "
            f"scale it is {percent(best_shares[0])} to {percent(best_shares[-1])}.",
            "Multiplying the logits by a factor changes no decision, so the true robust accuracy "
            "is the same at every scale. Where the search at a scale leaves a higher accuracy than "
            "the examples of the best scale, its gradient vanished, and its number is no evidence "
            "of robustness.",
        ),
        _axis(factors),
        Axis("share classified correctly", is_share=True),
        [
            Series(
                "searched at this scale", "survived", x, own_shares,
                notes=[one.note for one in own],
            ),
            Series(
                "examples of the best scale", "fooled", x, best_shares,
                notes=[one.note for one in best],
            ),
        ],
    )  # fmt: skip


def _quartiles(table: pd.DataFrame, column: str) -> pd.DataFrame:
    """Quartiles of log sharpness at each scale at which it was measured."""
    known = table[np.isfinite(table[column])]
    found: pd.DataFrame = known.groupby("factor")[column].quantile(_QUARTILES).unstack()
    return found.sort_index()


def _sharpness(found: pd.DataFrame, measure: SharpnessMeasure) -> Figure:
    factors = [float(factor) for factor in found.index]
    low, median, high = (found[quantile].tolist() for quantile in _QUARTILES)
    return line_chart(
        FigureText(
            "scale-kappa" if measure is KAPPA else "scale-sharpness",
            f"{measure.log_name} at each scale of the logits",
            f"The median is {number(median[0])} at × {factors[0]:g} and {number(median[-1])} at "
            f"× {factors[-1]:g}.",
            f"Clean images; the band holds 50% of them. A low {measure.name} means flat and "
            "confident. Here the flatness comes from the confidence, not from robustness.",
        ),
        _axis(factors),
        Axis(f"{measure.log_name}, clean"),
        [
            Series(
                "median", "clean", [math.log10(factor) for factor in factors], median,
                bands=(Band(low, high, strong=True),),
            )
        ],
    )  # fmt: skip


LOGIT_SCALES = Section("scales", "Scales of the logits", _build)
