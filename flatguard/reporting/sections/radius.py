"""Robust accuracy against ε: the reported and the corrected number, and larger balls."""

from __future__ import annotations

import numpy as np
import pandas as pd

from flatguard.checks.statistics import interval
from flatguard.geometry.budget import Budget
from flatguard.reporting.charts import Axis, Series, Words, line_chart
from flatguard.reporting.figure import Figure, Tone
from flatguard.reporting.judged_run import JudgedRun
from flatguard.reporting.sections.section import Drawn, NotMeasured, Section
from flatguard.reporting.text import counted, number, percent

ACCURACY = Axis("share still right", is_share=True)
SIGHTS: dict[str, tuple[str, Tone]] = {
    "raw": ("larger balls, plain gradient", "other"),
    "best": ("larger balls, best direction", "fell"),
}
MOST_CORNERS = 200

SPREAD = 0.9
"""Examples whose distances differ by less all went to the radius: they show no curve."""


def _draw(judged: JudgedRun) -> Drawn | NotMeasured:
    budget, swept = judged.budget, _swept(judged)
    figures, data, intro = [], {}, ""
    if budget.eps is not None:
        figures.append(_ladder(judged, budget, budget.eps, swept))
        data = _data(budget.eps, swept)
    if budget.eps is not None and swept is None:
        intro = "Larger balls were not tried; flatguard audit RUN --checks standard does."
    nearest = _nearest(judged)
    if nearest is not None:
        figures.append(_distances(judged, nearest))
        data["no_example_within"] = nearest.tolist()
    if not figures:
        return NotMeasured("the attack knows no radius, and found no adversarial example")
    return Drawn(tuple(figures), intro=intro, data=data)


def _swept(judged: JudgedRun) -> pd.DataFrame | None:
    probe = judged.evidence.probe("sweep")
    return None if probe is None else probe.tables.get("sweep")


def _ladder(judged: JudgedRun, budget: Budget, eps: float, swept: pd.DataFrame | None) -> Figure:
    """Radii as rungs of equal height: they grow by factors, and the first of them is 0."""
    radii = [0.0, eps] if swept is None else [0.0, eps, *sorted(swept["eps"].unique())]
    rung = {radius: float(index) for index, radius in enumerate(radii)}
    labels = tuple((rung[radius], _radius(budget, eps, radius)) for radius in radii)
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
        *([] if swept is None else _sweeps(swept, rung)),
    ]  # fmt: skip
    last = "" if swept is None else f" The sweep is over {_who(swept)}."
    return line_chart(
        Words(
            "accuracy-eps",
            "Robust accuracy against ε",
            f"Accuracy {percent(summary['clean_accuracy'])} clean, "
            f"{percent(verdict.robust_accuracy)} reported and "
            f"{percent(verdict.corrected_robust_accuracy)} corrected at {budget}. {_told(swept)}",
            "In a ball that holds every image accuracy must fall to chance; where it does not, "
            f"the search was hindered, not the model robust. Whiskers are exact 95% intervals."
            f"{last}",
        ),
        Axis(f"ε in {budget.norm}", labels=labels),
        ACCURACY,
        series,
    )


def _radius(budget: Budget, eps: float, radius: float) -> str:
    if radius == 0.0:
        return "0"
    factor = radius / eps
    if abs(factor - round(factor)) < 1e-6:
        return str(budget).split(" ", 1)[1] if round(factor) == 1 else f"×{round(factor)}"
    return number(radius, 3)


def _sweeps(swept: pd.DataFrame, rung: dict[float, float]) -> list[Series]:
    found = []
    for sight, (name, tone) in SIGHTS.items():
        right = ~swept.loc[swept["sight"] == sight].set_index("eps")["fooled"].astype(bool)
        counts = right.groupby(level=0).agg(["sum", "size"]).sort_index()
        shares = [(int(a), int(b)) for a, b in counts.itertuples(index=False)]
        found.append(
            Series(
                name, tone, [rung[float(eps)] for eps in counts.index],
                [right / n for right, n in shares],
                notes=["95% {:.0%} to {:.0%}".format(*interval(right, n)) for right, n in shares],
            )
        )  # fmt: skip
    return [series for series in found if len(series.x)]


def _who(swept: pd.DataFrame) -> str:
    return f"{counted(swept['sample'].nunique(), 'sample')} that are right when clean"


def _told(swept: pd.DataFrame | None) -> str:
    if swept is None:
        return ""
    largest = swept[swept["eps"] == swept["eps"].max()]
    left = 1.0 - float(largest.groupby("sight")["fooled"].mean().max())
    return f"{percent(left)} of {_who(swept)} are right in the largest ball."


def _nearest(judged: JudgedRun) -> np.ndarray | None:
    """The distances of the examples that fool, sorted; None where they all lie at the radius."""
    found = judged.samples
    fooled = found[found["clean_correct"] & (found["adv_prediction"] != found["label"])]
    kept = fooled["distance"].to_numpy(float)
    distances: np.ndarray = np.sort(kept[np.isfinite(kept)])
    if not len(distances) or np.quantile(distances, 0.1) > SPREAD * np.quantile(distances, 0.9):
        return None
    return distances


def _distances(judged: JudgedRun, distances: np.ndarray) -> Figure:
    """How near the examples of an attack are that looks for near ones."""
    n, right = len(judged.samples), int(judged.samples["clean_correct"].sum())
    x = np.concatenate([[0.0], distances])
    y = (right - np.arange(len(x))) / n
    if len(x) > MOST_CORNERS:
        kept = np.unique(np.linspace(0, len(x) - 1, MOST_CORNERS).round().astype(int))
        x, y = x[kept], y[kept]
    norm = judged.budget.norm
    return line_chart(
        Words(
            "accuracy-distance",
            "How near the audited attack's examples are",
            f"Accuracy falls from {percent(right / n)} to {percent(float(y[-1]))} at a distance of "
            f"{number(float(x[-1]))}.",
            "The share of all samples without an adversarial example within that distance, by the "
            "distances of the examples that the attack returned: an upper bound at every ε.",
        ),
        Axis("distance" if norm == "none" else f"distance in {norm}"),
        ACCURACY,
        [Series("no example within", "survived", x.tolist(), y.tolist(), kind="steps")],
    )


def _data(eps: float, swept: pd.DataFrame | None) -> dict[str, object]:
    if swept is None:
        return {"eps": eps, "sweep": None}
    points = []
    for sight, radius in _rungs(swept):
        right = ~swept.loc[(swept["sight"] == sight) & (swept["eps"] == radius), "fooled"].astype(
            bool
        )
        points.append(
            {
                "direction": sight,
                "eps": radius,
                "accuracy": float(right.mean()),
                "interval": list(interval(int(right.sum()), len(right))),
                "samples": len(right),
            }
        )
    return {"eps": eps, "sweep": points}


def _rungs(swept: pd.DataFrame) -> list[tuple[str, float]]:
    pairs = swept[["sight", "eps"]].drop_duplicates().sort_values(["sight", "eps"])
    return [(str(sight), float(eps)) for sight, eps in pairs.itertuples(index=False)]


RADIUS = Section("accuracy-against-radius", "Accuracy against ε", _draw)
