"""Basins along the attack, what flatness says about them, and flatness in weight space."""

from __future__ import annotations

import numpy as np
import pandas as pd

from flatguard.checks.basins import Basins
from flatguard.checks.statistics import interval, median_interval
from flatguard.geometry.measures import KAPPA
from flatguard.reporting.charts import Axis, Series, line_chart
from flatguard.reporting.figure import Figure, FigureText, Tone
from flatguard.reporting.judged_run import JudgedRun
from flatguard.reporting.sections.section import NotMeasured, Section, SectionContent
from flatguard.reporting.sections.weight_space import weight_data, weight_figures, weight_sentence
from flatguard.reporting.summaries import evenly_spaced
from flatguard.reporting.text import counted, number, percent

_MOST_CORNERS = 120
_GROUPS = 4
"""Samples are grouped by quarters of clean log sharpness."""

_NORMS = {"linf": "ℓ∞", "l2": "ℓ2"}


def _build(judged: JudgedRun) -> SectionContent | NotMeasured:
    found, of_weights = judged.basins, weight_figures(judged)
    data: dict[str, object] = {"weights": weight_data(judged)}
    if not len(found.table):
        if not of_weights:
            return NotMeasured(
                "no model call of the attack could be assigned to a correctly classified sample"
            )
        return SectionContent(tuple(of_weights), intro=weight_sentence(judged), data=data)
    figures = [_share_in_basin(found)]
    quarters = _quarters(found.table, found.measure.column)
    if quarters is not None:
        figures.append(_width_by_sharpness(found, quarters))
    intro = f"{_valley_sentence(found)} {weight_sentence(judged)}".strip()
    return SectionContent((*figures, *of_weights), intro=intro, data=_data(found) | data)


def _share_in_basin(found: Basins) -> Figure:
    """The share of samples at which the attack does not refute (δ, ε)-robustness, against δ."""
    survived = found.table["robust"].to_numpy(bool)
    groups: list[tuple[pd.DataFrame, Tone]] = [
        (found.table[~survived], "fooled"),
        (found.table[survived], "survived"),
    ]
    left, median = int(found.table["left"].sum()), found.width_quartiles[1]
    width = (
        "the attack left fewer than half of the basins"
        if median is None
        else f"the median width is {number(median)}"
    )
    return line_chart(
        FigureText(
            "basins",
            "Basin width",
            f"The attack left the basin of {left:,} of {counted(len(found.table), 'sample')}; "
            f"{width}.",
            "The share of images whose loss did not rise by more than "
            f"{found.epsilon:g} at any point that the attack visited within a distance δ. This "
            "region of flat loss is the image's basin. Where the loss did not rise, the attack "
            "does not refute (δ, ε)-robustness (Walter et al. 2026, Definition 5); it cannot prove "
            "it, because it did not visit every point.",
        ),
        Axis(f"distance δ in {_NORMS[found.distance]}"),
        Axis("share still in its basin", is_share=True),
        [_share_curve(table, tone) for table, tone in groups if len(table)],
    )


def _share_curve(table: pd.DataFrame, tone: Tone) -> Series:
    widths = np.sort(table.loc[table["left"], "width"].to_numpy(float))
    x = np.concatenate([[0.0], widths, [float(table["width"].max())]])
    y = np.concatenate([[1.0], 1.0 - np.arange(1, len(widths) + 1) / len(table)])
    y = np.append(y, y[-1])
    kept = evenly_spaced(len(x), _MOST_CORNERS)
    return Series(
        f"{tone} ({len(table):,})", tone, x[kept].tolist(), y[kept].tolist(), kind="steps"
    )


def _quarters(table: pd.DataFrame, sharpness: str) -> pd.DataFrame | None:
    """Median width in each quarter of log sharpness; None if one has under six samples."""
    known: pd.DataFrame = table[np.isfinite(table[sharpness])]
    if len(known) < 6 * _GROUPS:
        return None
    quarter = (known[sharpness].rank(method="first") - 1) * _GROUPS // len(known)
    grouped = known.groupby(quarter)
    found: pd.DataFrame = grouped[[sharpness, "width"]].median()
    found["interval"] = grouped["width"].apply(lambda widths: median_interval(widths.tolist()))
    return found


def _width_by_sharpness(found: Basins, quarters: pd.DataFrame) -> Figure:
    rho, name = found.width_and_sharpness, found.measure.log_name
    correlation = "All basins have the same width"
    if rho is not None:
        low, high = rho.interval
        correlation = (
            f"The rank correlation ρ of basin width and clean {name} is {number(rho.rho, 2)} (95% "
            f"interval {number(low, 2)} to {number(high, 2)})"
        )
    return line_chart(
        FigureText(
            "basin-kappa" if found.measure is KAPPA else "basin-sharpness",
            "Basin width by flatness at the clean image",
            f"{correlation}.",
            f"Median width in each quarter of the samples, by clean {name}. A basin that the "
            "attack did not leave counts with the length of the path. Whiskers are 95% intervals "
            f"of the medians. {correlation}. A value well below 0 means that images with a flat "
            "loss have wide basins. A basin says nothing about the region beyond it.",
        ),
        Axis(f"{name}, clean"),
        Axis(f"width in {_NORMS[found.distance]}"),
        [
            Series(
                "median width", "clean", quarters[found.measure.column].tolist(),
                quarters["width"].tolist(), kind="points", interval=quarters["interval"].tolist(),
            )
        ],
    )  # fmt: skip


def _valley_sentence(found: Basins) -> str:
    flatter, fooled = found.flatter
    if not fooled:
        return f"No adversarial example has {found.measure.name} measured at both ends of its path."
    sentence = (
        f"{percent(flatter / fooled)} of {counted(fooled, 'adversarial example')} are flatter than "
        "their clean image: a flat prediction is not necessarily correct."
    )
    at, flips = found.peak_at_flip
    if flips:
        sentence += (
            f" {found.measure.start} has its maximum within one step of the first wrong prediction "
            f"on {percent(at / flips)} of the paths."
        )
    return sentence


def _data(found: Basins) -> dict[str, object]:
    rho = found.width_and_sharpness
    return {
        "epsilon": found.epsilon,
        "distance": found.distance,
        "samples": len(found.table),
        "left": int(found.table["left"].sum()),
        "width_quartiles": list(found.width_quartiles),
        "epsilon_star": found.epsilon_star,
        f"width_and_{found.measure.column}": None
        if rho is None
        else {"rho": rho.rho, "interval": list(rho.interval), "samples": rho.n},
        "flatter_than_clean": _share_data(*found.flatter),
        "peak_at_flip": _share_data(*found.peak_at_flip),
    }


def _share_data(count: int, samples: int) -> dict[str, object]:
    return {"count": count, "samples": samples, "interval": list(interval(count, samples))}


GEOMETRY = Section("geometry", "Geometry", _build)
