"""Basins along the attack, and what flatness says about them: local, and no sign of being right."""

from __future__ import annotations

import numpy as np
import pandas as pd

from flatguard.checks.basins import Basins
from flatguard.checks.statistics import interval, median_interval
from flatguard.reporting.charts import Axis, Series, Words, line_chart
from flatguard.reporting.figure import Figure, Tone
from flatguard.reporting.judged_run import JudgedRun
from flatguard.reporting.sections.section import Drawn, NotMeasured, Section
from flatguard.reporting.sections.weight_space import weight_data, weight_figures, weight_sentence
from flatguard.reporting.text import counted, number, percent

MOST_CORNERS = 120
GROUPS = 4
"""Samples are grouped by quarters of clean log κ."""

NORMS = {"linf": "ℓ∞", "l2": "ℓ2"}


def _draw(judged: JudgedRun) -> Drawn | NotMeasured:
    found, of_weights = judged.basins, weight_figures(judged)
    if not len(found.table) and not of_weights:
        return NotMeasured(
            "no call of the attack belongs for certain to a sample that was right when clean"
        )
    data: dict[str, object] = {"weights": weight_data(judged)}
    if not len(found.table):
        return Drawn(tuple(of_weights), intro=weight_sentence(judged), data=data)
    figures = [_still_inside(found)]
    quarters = _quarters(found.table)
    if quarters is not None:
        figures.append(_by_kappa(found, quarters))
    intro = f"{_valley(found)} {weight_sentence(judged)}".strip()
    return Drawn((*figures, *of_weights), intro=intro, data=_data(found) | data)


def _still_inside(found: Basins) -> Figure:
    """The share that the attack leaves (δ, ε)-robust, against δ."""
    survived = found.table["robust"].to_numpy(bool)
    series = [
        _curve(found.table[~survived], "fell", "fell"),
        _curve(found.table[survived], "survived", "survived"),
    ]
    left, median = int(found.table["left"].sum()), found.width_quartiles[1]
    width = "most were never left" if median is None else f"the median width is {number(median)}"
    return line_chart(
        Words(
            "basins",
            "How wide the basins are",
            f"{left:,} of {counted(len(found.table), 'sample')} left their basin; {width}.",
            f"The share of samples whose loss is nowhere seen to rise by more than "
            f"{found.epsilon:g} within a distance: what the attack leaves (δ, ε)-robust (Walter et "
            "al. 2026, Definition 5). An attack refutes robustness and never proves it.",
        ),
        Axis(f"distance δ in {NORMS[found.distance]}"),
        Axis("share still in its basin", is_share=True),
        [one for one in series if len(one.x)],
    )


def _curve(table: pd.DataFrame, name: str, tone: Tone) -> Series:
    widths = np.sort(table.loc[table["left"], "width"].to_numpy(float))
    if not len(table):
        return Series(name, tone, [], [])
    x = np.concatenate([[0.0], widths, [float(table["width"].max())]])
    y = np.concatenate([[1.0], 1.0 - np.arange(1, len(widths) + 1) / len(table)])
    y = np.append(y, y[-1])
    if len(x) > MOST_CORNERS:
        kept = np.unique(np.linspace(0, len(x) - 1, MOST_CORNERS).round().astype(int))
        x, y = x[kept], y[kept]
    return Series(f"{name} ({len(table):,})", tone, x.tolist(), y.tolist(), kind="steps")


def _quarters(table: pd.DataFrame) -> pd.DataFrame | None:
    """Median width in each quarter of clean log κ; None where a quarter has under six samples."""
    known: pd.DataFrame = table[np.isfinite(table["log_kappa"])]
    if len(known) < 6 * GROUPS:
        return None
    quarter = (known["log_kappa"].rank(method="first") - 1) * GROUPS // len(known)
    rows = [
        (
            part["log_kappa"].median(),
            part["width"].median(),
            median_interval(part["width"].tolist()),
        )
        for _, part in known.groupby(quarter)
    ]
    found: pd.DataFrame = pd.DataFrame(rows, columns=["log_kappa", "width", "interval"])
    return found


def _by_kappa(found: Basins, quarters: pd.DataFrame) -> Figure:
    rho = found.width_and_kappa
    said = "every basin is equally wide"
    if rho is not None:
        low, high = rho.interval
        said = f"Spearman's ρ is {number(rho.rho, 2)} (95% {number(low, 2)} to {number(high, 2)})"
    return line_chart(
        Words(
            "basin-kappa",
            "Flatness at the clean image and the basin's width",
            f"Of width and clean log κ, {said}.",
            "Median width in each quarter of the samples by clean log κ, a basin that was never "
            "left with its whole path; whiskers are 95% intervals of the medians. "
            f"{said[0].upper() + said[1:]}: flat images have wide basins where it "
            "is well below 0. A basin is local: it ends, and says nothing of what lies beyond.",
        ),
        Axis("log κ, clean"),
        Axis(f"width in {NORMS[found.distance]}"),
        [
            Series(
                "median width", "clean", quarters["log_kappa"].tolist(),
                quarters["width"].tolist(), kind="points", interval=quarters["interval"].tolist(),
            )
        ],
    )  # fmt: skip


def _valley(found: Basins) -> str:
    flatter, fooled = found.flatter
    if not fooled:
        return "No sample fell with κ measured at both ends, so there is no valley to show."
    said = (
        f"{percent(flatter / fooled)} of {counted(fooled, 'adversarial example')} are flatter than "
        "their clean image: flat is not right."
    )
    at, flips = found.peak_at_flip
    if flips:
        said += (
            f" κ peaks within a step of the first wrong prediction on {percent(at / flips)} of the "
            "ways."
        )
    return said


def _data(found: Basins) -> dict[str, object]:
    rho, fooled = found.width_and_kappa, found.flatter
    at_flip = found.peak_at_flip
    return {
        "epsilon": found.epsilon,
        "distance": found.distance,
        "samples": len(found.table),
        "left": int(found.table["left"].sum()),
        "width_quartiles": list(found.width_quartiles),
        "epsilon_star": found.epsilon_star,
        "width_and_log_kappa": None
        if rho is None
        else {"rho": rho.rho, "interval": list(rho.interval), "samples": rho.n},
        "flatter_than_clean": {
            "count": fooled[0], "samples": fooled[1], "interval": list(interval(*fooled)),
        },
        "peak_at_flip": {
            "count": at_flip[0], "samples": at_flip[1], "interval": list(interval(*at_flip)),
        },
    }  # fmt: skip


GEOMETRY = Section("geometry", "Geometry", _draw)
