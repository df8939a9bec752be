"""The same decisions at other logit scales: what an attack reports, what is true, and κ."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from flatguard.checks.statistics import interval
from flatguard.reporting.charts import Axis, Band, Series, Words, line_chart
from flatguard.reporting.figure import Figure
from flatguard.reporting.judged_run import JudgedRun
from flatguard.reporting.sections.section import Drawn, NotMeasured, Section
from flatguard.reporting.text import counted, number, percent

HALF = (0.25, 0.75)
"""The quantiles that half of the samples lie between."""


def _draw(judged: JudgedRun) -> Drawn | NotMeasured:
    probe = judged.evidence.probe("scales")
    table = None if probe is None else probe.tables.get("scales")
    if table is None or not len(table):
        return NotMeasured(
            "the same search was not tried at other scales of the logits",
            "flatguard audit RUN --checks standard",
        )
    factors = sorted(float(factor) for factor in table["factor"].unique())
    figures = [_accuracy(table, factors)]
    kappa = _quantiles(table)
    if len(kappa):
        figures.append(_kappa(kappa))
    data = {
        "steps": probe.facts.get("steps") if probe is not None else None,
        "samples": int(table["sample"].nunique()),
        "scales": _data(table, factors),
    }
    who = counted(table["sample"].nunique(), "sample")
    intro = f"{who}, right when clean, attacked for {data['steps']} steps behind logits multiplied."
    return Drawn(tuple(figures), intro=intro, data=data)


def _axis(factors: list[float]) -> Axis:
    """A factor of 10 is a rung."""
    marks = tuple((math.log10(factor), f"× {factor:g}") for factor in factors)
    return Axis("the target's own logits, times", labels=marks)


def _left(table: pd.DataFrame, column: str) -> tuple[list[float], list[str]]:
    """The share still right at each scale, and its exact interval in words."""
    counts = (~table[column].astype(bool)).groupby(table["factor"]).agg(["sum", "size"])
    shares = [(int(right), int(n)) for right, n in counts.sort_index().itertuples(index=False)]
    said = ["95% {:.0%} to {:.0%}".format(*interval(right, n)) for right, n in shares]
    return [right / n for right, n in shares], said


def _accuracy(table: pd.DataFrame, factors: list[float]) -> Figure:
    x = [math.log10(factor) for factor in factors]
    own, own_said = _left(table, "fooled")
    best, best_said = _left(table, "fooled_by_best")
    return line_chart(
        Words(
            "scale-accuracy",
            "Robust accuracy at each scale of the logits",
            f"The same search leaves from {percent(min(own))} to {percent(max(own))} right, "
            f"depending on the scale; the examples of the best scale leave {percent(best[0])} to "
            f"{percent(best[-1])}.",
            "Multiplying logits moves no decision, so the truth is one height. Where the search "
            "at a scale leaves more than the examples found at the best scale leave there, its "
            "gradient was starved, and its number says nothing about robustness.",
        ),
        _axis(factors),
        Axis("share still right", is_share=True),
        [
            Series("searched at this scale", "survived", x, own, notes=own_said),
            Series("examples of the best scale", "fell", x, best, notes=best_said),
        ],
    )


def _quantiles(table: pd.DataFrame) -> pd.DataFrame:
    """Median and middle half of log κ at each scale where it was measured."""
    known = table[np.isfinite(table["log_kappa"])]
    found = known.groupby("factor")["log_kappa"].quantile([HALF[0], 0.5, HALF[1]]).unstack()
    ordered: pd.DataFrame = found.sort_index()
    return ordered


def _kappa(found: pd.DataFrame) -> Figure:
    factors = [float(factor) for factor in found.index]
    low, middle, high = (found[q].tolist() for q in (HALF[0], 0.5, HALF[1]))
    return line_chart(
        Words(
            "scale-kappa",
            "log κ at each scale of the logits",
            f"The median goes from {number(middle[0])} at × {factors[0]:g} to "
            f"{number(middle[-1])} at × {factors[-1]:g}.",
            "Clean images; the band holds half of them. The lower, the flatter and the surer: "
            "flat by confidence, not by robustness.",
        ),
        _axis(factors),
        Axis("log κ, clean"),
        [
            Series(
                "median", "clean", [math.log10(f) for f in factors], middle,
                bands=(Band(low, high, strong=True),),
            )
        ],
    )  # fmt: skip


def _data(table: pd.DataFrame, factors: list[float]) -> list[dict[str, float | None]]:
    own, best = _left(table, "fooled")[0], _left(table, "fooled_by_best")[0]
    kappa = _quantiles(table)
    middle = dict(zip(kappa.index, kappa[0.5], strict=True)) if len(kappa) else {}
    return [
        {"factor": f, "left": own[i], "left_by_best": best[i], "log_kappa": middle.get(f)}
        for i, f in enumerate(factors)
    ]


LOGIT_SCALES = Section("scales", "Scales of the logits", _draw)
