"""The part of the Geometry section that is about weights: flatness, Eq. (1), and landscapes."""

from __future__ import annotations

import pandas as pd

from flatguard.checks.weight_space.summary import (
    WeightLosses,
    ends,
    landscapes,
    mean,
    weight_losses,
    worst,
)
from flatguard.reporting.charts import Axis, Band, Series, Words, line_chart
from flatguard.reporting.figure import Figure
from flatguard.reporting.judged_run import JudgedRun
from flatguard.reporting.text import counted, number


def weight_figures(judged: JudgedRun) -> list[Figure]:
    """A figure for each landscape that was measured for this run."""
    return [_landscape(table, index) for index, table in enumerate(landscapes(judged.run))]


def weight_sentence(judged: JudgedRun) -> str:
    """Flatness in the robust loss, where it was measured; nothing elsewhere."""
    found = weight_losses(judged.run).get("test")
    if found is None:
        return ""
    rises = found.rises("average", "robust_loss")
    value, interval = mean(rises), ends(rises)
    if value is None or interval is None:
        return ""
    around = found.facts.facts["around"]
    said = (
        f"Flatness in robust loss (Stutz et al. 2021, Eq. 1): {number(value, 3)} (95% "
        f"{number(interval[0], 3)} to {number(interval[1], 3)}), over "
        f"{counted(len(rises), 'perturbed model')} at ξ = {around['xi']:g}; lower is flatter."
    )
    return f"{said} {_worst(found)}".strip()


def weight_data(judged: JudgedRun) -> dict[str, object]:
    """The same numbers for `report.json`."""
    return {
        part: {
            "robust_loss": mean(losses.matrix("reference", "robust_loss")),
            "flatness": mean(losses.rises("average", "robust_loss")),
            "interval": ends(losses.rises("average", "robust_loss")),
            "clean_flatness": mean(losses.rises("average", "clean_loss")),
            "worst": worst(losses.rises("worst-robust", "robust_loss")),
        }
        for part, losses in weight_losses(judged.run).items()
    }


def _worst(found: WeightLosses) -> str:
    value = worst(found.rises("worst-robust", "robust_loss"))
    if value is None:
        return ""
    radius = found.facts.facts["around"]["worst_xi"]
    return f"Worst case within ξ = {radius:g}: {number(value, 3)}."


def _landscape(table: pd.DataFrame, index: int) -> Figure:
    means = table.groupby(["t", "direction"])[["robust_loss", "clean_loss"]].mean()
    by_t = means["robust_loss"].groupby(level="t")
    x = [float(t) for t in by_t.mean().index]
    middle, low, high = (values.tolist() for values in (by_t.mean(), by_t.min(), by_t.max()))
    clean = means["clean_loss"].groupby(level="t").mean().tolist()
    count = int(table["direction"].nunique())
    return line_chart(
        Words(
            f"landscape-{index}" if index else "landscape",
            "The loss around the weights",
            f"Robust loss is {number(middle[len(x) // 2])} at the model and "
            f"{number(max(middle))} at the highest mean of {counted(count, 'direction')}.",
            "Along random directions whose every filter is as long as the model's (Li et al. "
            "2018), with the attack run anew at each point; the band holds all directions. Height "
            "and shape do not depend on how layers are scaled. How flat is flat enough, a picture "
            "does not say (Stutz et al. 2021, Section 2).",
        ),
        Axis("t, in lengths of a filter"),
        Axis("mean loss"),
        [
            Series("robust loss", "fell", x, middle, bands=(Band(low, high),)),
            Series("clean loss", "clean", x, clean),
        ],
    )
