"""Flatness in weight space (Stutz et al. 2021, Eq. 1) and loss landscapes, for "Geometry"."""

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
from flatguard.reporting.charts import Axis, Band, Series, line_chart
from flatguard.reporting.figure import Figure, FigureText
from flatguard.reporting.judged_run import JudgedRun
from flatguard.reporting.text import counted, number


def weight_figures(judged: JudgedRun) -> list[Figure]:
    """A figure for each loss landscape that was measured for this run."""
    return [_landscape(table, index) for index, table in enumerate(landscapes(judged.run))]


def weight_sentence(judged: JudgedRun) -> str:
    """The flatness in the robust loss; empty if it was not measured."""
    found = weight_losses(judged.run).get("test")
    if found is None:
        return ""
    rises = found.rises("average", "robust_loss")
    value, interval = mean(rises), ends(rises)
    if value is None or interval is None:
        return ""
    around = found.facts.facts["around"]
    sentence = (
        f"Flatness in weight space (Stutz et al. 2021, Eq. 1): {number(value, 3)} (95% interval "
        f"{number(interval[0], 3)} to {number(interval[1], 3)}). So much higher is the robust "
        "loss, the loss under the attack, where the weights are changed at random by "
        f"ξ = {around['xi']:g} of their size, on average over "
        f"{counted(len(rises), 'changed model')}. Lower is flatter; no value is known to be flat "
        "enough."
    )
    worst_case = worst(found.rises("worst-robust", "robust_loss"))
    if worst_case is not None:
        sentence += (
            f" For the worst change that was found within ξ = {around['worst_xi']:g} it is higher "
            f"by {number(worst_case, 3)}."
        )
    return sentence


def weight_data(judged: JudgedRun) -> dict[str, object]:
    """The same numbers for `report.json`."""
    return {part: _losses_data(losses) for part, losses in weight_losses(judged.run).items()}


def _losses_data(losses: WeightLosses) -> dict[str, object]:
    robust = losses.rises("average", "robust_loss")
    return {
        "robust_loss": mean(losses.matrix("reference", "robust_loss")),
        "flatness": mean(robust),
        "interval": ends(robust),
        "clean_flatness": mean(losses.rises("average", "clean_loss")),
        "worst": worst(losses.rises("worst-robust", "robust_loss")),
    }


def _landscape(table: pd.DataFrame, index: int) -> Figure:
    means = table.groupby(["t", "direction"])[["robust_loss", "clean_loss"]].mean()
    robust = means["robust_loss"].groupby(level="t").agg(["mean", "min", "max"])
    clean = means["clean_loss"].groupby(level="t").mean().tolist()
    x = [float(t) for t in robust.index]
    average = robust["mean"].tolist()
    directions = counted(int(table["direction"].nunique()), "direction")
    return line_chart(
        FigureText(
            f"landscape-{index}" if index else "landscape",
            "The loss around the weights",
            f"Robust loss is {number(average[len(x) // 2])} at the model's weights; the highest "
            f"mean over {directions} is {number(max(average))}.",
            "The loss where the model's weights are moved along random directions. At t = 0 is the "
            "model itself; at t = 1 each of its filters has moved by its own size (Li et al. "
            "2018), so the figure does not depend on the scale of the layers. Robust loss is the "
            "loss under the attack, which runs again at each point; clean loss is without it. The "
            "line is the mean, and the band holds all directions. A curve that stays low is flat; "
            "no flatness is known to be enough (Stutz et al. 2021, Section 2).",
        ),
        Axis("t, the distance from the model in filter norms"),
        Axis("mean loss"),
        [
            Series(
                "robust loss", "fooled", x, average,
                bands=(Band(robust["min"].tolist(), robust["max"].tolist()),),
            ),
            Series("clean loss", "clean", x, clean),
        ],
    )  # fmt: skip
