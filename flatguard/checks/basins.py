"""Basins and the uncanny valley in a run's evidence: one row for each sample, block by block."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from flatguard.checks.statistics import Correlation, rank_correlation
from flatguard.checks.visited import distance_column, visited_of
from flatguard.geometry.basin import (
    LOSS_TOLERANCE,
    Visited,
    basins,
    epsilon_star,
    is_within,
    rank_widths,
)
from flatguard.geometry.measures import KAPPA, SharpnessMeasure
from flatguard.runs.run import Run

COLUMNS = ("loss", "prediction")


@dataclass(frozen=True)
class Basins:
    """What the attack's points say about the samples that are right when clean.

    Attributes:
        table: a row per sample: `sample`, `robust`, `width` (distance of the take-off point, or of
            the farthest visited point where the basin was never left), `left`, `log_kappa` and
            `adv_log_kappa` (named after another measure where that was taken), `peak` and `flip`
            (steps of the largest sharpness and of the first wrong prediction; missing where there
            is none), `last` (its last step).
        epsilon: the loss tolerance ε.
        distance: the norm of the widths, `linf` or `l2`.
        epsilon_star: the least rise of any flip within the radius; None where nothing flipped.
        measure: the measure of sharpness.
    """

    table: pd.DataFrame
    epsilon: float
    distance: str
    epsilon_star: float | None
    measure: SharpnessMeasure = KAPPA

    def refuted(self, delta: float) -> list[int]:
        """The samples at which the attack refutes (δ, ε)-robustness; over the set, any of them."""
        found = self.table["left"] & is_within(self.table["width"].to_numpy(float), delta)
        return [int(sample) for sample in self.table.loc[found, "sample"]]

    @property
    def width_quartiles(self) -> tuple[float | None, ...]:
        """Of the widths; None where one lies among basins that were never left."""
        widths = np.where(self.table["left"], self.table["width"].to_numpy(float), np.inf)
        if not len(widths):
            return (None, None, None)
        found = np.quantile(widths, [0.25, 0.5, 0.75], method="higher")
        return tuple(float(value) if np.isfinite(value) else None for value in found)

    @property
    def width_and_sharpness(self) -> Correlation | None:
        """Rank correlation of width and clean log sharpness; basins never left are tied."""
        width, left = self.table["width"].to_numpy(float), self.table["left"].to_numpy(bool)
        return rank_correlation(
            rank_widths(width, left).tolist(),
            self.table[self.measure.column].astype(float).tolist(),
        )

    @property
    def fooled(self) -> pd.DataFrame:
        """The samples whose returned example fools, with sharpness measured at both ends."""
        found = self.table
        clean, adversarial = found[self.measure.column], found[f"adv_{self.measure.column}"]
        measured = np.isfinite(clean) & np.isfinite(adversarial)
        kept: pd.DataFrame = found[~found["robust"] & measured]
        return kept

    @property
    def flatter(self) -> tuple[int, int]:
        """How many adversarial examples are flatter than their clean image, of how many."""
        fooled = self.fooled
        flatter = fooled[f"adv_{self.measure.column}"] < fooled[self.measure.column]
        return int(flatter.sum()), len(fooled)

    @property
    def peak_at_flip(self) -> tuple[int, int]:
        """On how many ways sharpness peaks within a step of the flip, of how many that flip."""
        known = self.fooled.dropna(subset=["peak", "flip"])
        return int(((known["peak"] - known["flip"]).abs() <= 1).sum()), len(known)


def basins_of(run: Run, epsilon: float = LOSS_TOLERANCE) -> Basins:
    """The basins of a run's samples that are right when clean, as its attack saw them.

    Cost: the trajectory is read once, a few columns of a block at a time.
    """
    column = distance_column(run.request.norm)
    right = run.samples[run.samples["clean_correct"]].set_index("sample", drop=False)
    eps, stars, parts = run.request.budget().eps, [], []
    for rows in run.paths(*COLUMNS, run.sharpness.column, column):
        kept = rows[rows["sample"].isin(right.index)].reset_index(drop=True)
        if len(kept):
            visited = visited_of(kept, run.samples, column)
            stars.append(epsilon_star(visited, math.inf if eps is None else eps))
            parts.append(_table(visited, kept, right, epsilon, run.sharpness.column))
    known = [star for star in stars if star is not None]
    table = pd.concat(parts, ignore_index=True) if parts else _empty(run.sharpness.column)
    return Basins(table, epsilon, column, min(known) if known else None, run.sharpness)


def _table(
    visited: Visited, rows: pd.DataFrame, right: pd.DataFrame, epsilon: float, sharpness: str
) -> pd.DataFrame:
    found = basins(visited, epsilon)
    facts = right.loc[found.sample]
    step = rows.groupby("sample").cumcount()
    values = rows[sharpness].where(np.isfinite(rows[sharpness]))
    by_sample = pd.DataFrame({"sample": rows["sample"], "step": step, "sharpness": values})
    peaks = by_sample.dropna().sort_values(["sharpness", "step"], ascending=[False, True])
    flips = by_sample[visited.wrong]
    table: pd.DataFrame = pd.DataFrame({
        "sample": found.sample,
        "robust": facts["robust"].to_numpy(bool),
        "width": found.width,
        "left": found.left,
        sharpness: facts[f"clean_{sharpness}"].to_numpy(float),
        f"adv_{sharpness}": facts[f"adv_{sharpness}"].to_numpy(float),
        "peak": peaks.groupby("sample")["step"].first().reindex(found.sample).to_numpy(float),
        "flip": flips.groupby("sample")["step"].first().reindex(found.sample).to_numpy(float),
        "last": step.groupby(rows["sample"]).max().to_numpy(float),
    })  # fmt: skip
    return table


def _empty(sharpness: str) -> pd.DataFrame:
    columns = ("sample", "width", sharpness, f"adv_{sharpness}", "peak", "flip", "last")
    table: pd.DataFrame = pd.DataFrame({name: np.empty(0) for name in columns})
    table["robust"] = table["left"] = np.empty(0, bool)
    return table
