"""Robust accuracy against ε: the reported and the corrected number, and larger radii."""

from __future__ import annotations

import numpy as np
import pandas as pd

from flatguard.checks.missing_evidence import how_to_run
from flatguard.geometry.budget import Budget
from flatguard.reporting.charts import Axis, Series, line_chart
from flatguard.reporting.figure import Figure, FigureText, Tone
from flatguard.reporting.judged_run import JudgedRun
from flatguard.reporting.sections.section import NotMeasured, Section, SectionContent
from flatguard.reporting.summaries import accuracy_by, evenly_spaced
from flatguard.reporting.text import counted, number, percent

_ACCURACY = Axis("share classified correctly", is_share=True)
_DIRECTIONS: dict[str, tuple[str, Tone]] = {
    "raw": ("larger radii, the model's own gradient", "other"),
    "best": ("larger radii, the best gradient found", "fooled"),
}
_MOST_CORNERS = 200

_SPREAD = 0.9
"""If the distances differ by a smaller factor, all examples lie at the radius: no curve."""


def _build(judged: JudgedRun) -> SectionContent | NotMeasured:
    budget, sweep = judged.budget, _sweep_table(judged)
    figures, data, intro = [], {}, ""
    if budget.eps is not None:
        figures.append(_accuracy_by_radius(judged, budget, budget.eps, sweep))
        data = {"eps": budget.eps, "sweep": None if sweep is None else _sweep_data(sweep)}
    if budget.eps is not None and sweep is None:
        how = how_to_run(judged.evidence, "sweep", "standard")
        intro = "Larger radii were not tried." + ("" if how is None else f" To try them: {how}")
    distances = _distances(judged)
    if distances is not None:
        figures.append(_accuracy_by_distance(judged, distances))
        data["no_example_within"] = distances.tolist()
    if not figures:
        return NotMeasured("the attack has no radius and found no adversarial example")
    return SectionContent(tuple(figures), intro=intro, data=data)


def _sweep_table(judged: JudgedRun) -> pd.DataFrame | None:
    probe = judged.evidence.probe("sweep")
    return None if probe is None else probe.tables.get("sweep")


def _accuracy_by_radius(
    judged: JudgedRun, budget: Budget, eps: float, sweep: pd.DataFrame | None
) -> Figure:
    """Radii at equal distances: they grow by factors, and the first one is 0."""
    radii = [0.0, eps] if sweep is None else [0.0, eps, *sorted(sweep["eps"].unique())]
    position = {radius: float(index) for index, radius in enumerate(radii)}
    labels = tuple((position[radius], _radius_label(budget, eps, radius)) for radius in radii)
    summary, verdict = judged.summary, judged.verdict
    series = [
        Series(
            "reported, all samples", "survived", [0.0, 1.0],
            [summary["clean_accuracy"], verdict.robust_accuracy], kind="points",
            interval=[tuple(summary["clean_interval"]), tuple(summary["robust_interval"])],
        ),
        Series(
            "corrected, all samples", "ink", [1.0], [verdict.corrected_robust_accuracy],
            kind="points", interval=[verdict.corrected_interval],
        ),
        *([] if sweep is None else _sweep_series(sweep, position)),
    ]  # fmt: skip
    sweep_alt = sweep_caption = ""
    if sweep is not None:
        correct = f"{counted(sweep['sample'].nunique(), 'sample')} that are correct without attack"
        best = sweep[sweep["eps"] == sweep["eps"].max()].groupby("sight")["fooled"].mean().max()
        sweep_alt = f" At the largest radius: {percent(1.0 - float(best))} of {correct}."
        sweep_caption = (
            f" The larger radii were tried on {correct}. If a radius allows any image, the "
            "accuracy must be no better than chance. If it is better, the search failed; the model "
            "is not robust there."
        )
    return line_chart(
        FigureText(
            "accuracy-eps",
            "Robust accuracy against ε",
            f"Accuracy {percent(summary['clean_accuracy'])} clean, "
            f"{percent(verdict.robust_accuracy)} reported and "
            f"{percent(verdict.corrected_robust_accuracy)} corrected at {budget}.{sweep_alt}",
            f"Whiskers are exact 95% intervals.{sweep_caption}",
        ),
        Axis(f"ε in {budget.norm}", labels=labels),
        _ACCURACY,
        series,
    )


def _radius_label(budget: Budget, eps: float, radius: float) -> str:
    if radius == 0.0:
        return "0"
    factor = radius / eps
    if abs(factor - round(factor)) < 1e-6:
        return str(budget).split(" ", 1)[1] if round(factor) == 1 else f"×{round(factor)}"
    return number(radius, 3)


def _sweep_series(sweep: pd.DataFrame, position: dict[float, float]) -> list[Series]:
    series = []
    for direction, (name, tone) in _DIRECTIONS.items():
        rows = sweep[sweep["sight"] == direction]
        found = accuracy_by(rows["eps"], rows["fooled"])
        if found:
            x = [position[one.group] for one in found]
            notes = [one.note for one in found]
            series.append(Series(name, tone, x, [one.share for one in found], notes=notes))
    return series


def _sweep_data(sweep: pd.DataFrame) -> list[dict[str, object]]:
    return [
        {
            "direction": str(direction),
            "eps": one.group,
            "accuracy": one.share,
            "interval": list(one.interval),
            "samples": one.samples,
        }
        for direction, rows in sweep.groupby("sight")
        for one in accuracy_by(rows["eps"], rows["fooled"])
    ]


def _distances(judged: JudgedRun) -> np.ndarray | None:
    """Distances of the examples that fool the model, ascending; None if all are at the radius."""
    samples = judged.samples
    fooled = samples["clean_correct"] & (samples["adv_prediction"] != samples["label"])
    distances = samples.loc[fooled, "distance"].to_numpy(float)
    distances = np.sort(distances[np.isfinite(distances)])
    if not len(distances) or np.quantile(distances, 0.1) > _SPREAD * np.quantile(distances, 0.9):
        return None
    return distances


def _accuracy_by_distance(judged: JudgedRun, distances: np.ndarray) -> Figure:
    """For attacks that minimise the distance: the share of samples without a nearer example."""
    n, correct = len(judged.samples), int(judged.samples["clean_correct"].sum())
    x = np.concatenate([[0.0], distances])
    y = (correct - np.arange(len(x))) / n
    kept = evenly_spaced(len(x), _MOST_CORNERS)
    x, y = x[kept], y[kept]
    norm = judged.budget.norm
    return line_chart(
        FigureText(
            "accuracy-distance",
            "Distance of the audited attack's examples",
            f"Accuracy decreases from {percent(correct / n)} to {percent(float(y[-1]))} at a "
            f"distance of {number(float(x[-1]))}.",
            "The share of all samples for which the attack returned no adversarial example within "
            "a distance. It is an upper bound on the robust accuracy at every ε.",
        ),
        Axis("distance" if norm == "none" else f"distance in {norm}"),
        _ACCURACY,
        [Series("no example within", "survived", x.tolist(), y.tolist(), kind="steps")],
    )


RADIUS = Section("accuracy-against-radius", "Accuracy against ε", _build)
