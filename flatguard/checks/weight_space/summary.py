"""Flatness and landscape in weight space, from the tables of a run's probes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from flatguard.checks.statistics import CONFIDENCE_LEVEL
from flatguard.errors import RunFolderError
from flatguard.runs.check_evidence import ProbeFacts, load_probes, load_tables
from flatguard.runs.run import Run

_RESAMPLES = 1000

Ends = tuple[float, float] | None


@dataclass(frozen=True)
class WeightLosses:
    """Losses at a model and at its perturbed ones, on one part of the data.

    Attributes:
        facts: the probe's.
        table: a row for each sample and model, as the probe stored it.
    """

    facts: ProbeFacts
    table: pd.DataFrame

    def matrix(self, case: str, column: str) -> np.ndarray:
        """A row for each model of the case, a column for each sample."""
        chosen = self.table[self.table["case"] == case]
        found: np.ndarray = chosen.pivot(index="index", columns="sample", values=column).to_numpy()
        return found

    def rises(self, case: str, column: str) -> np.ndarray:
        """By how much each sample's loss is above the reference, at each model of the case.

        Empty where the case was not looked at.
        """
        there = self.matrix(case, column)
        return there - self.matrix("reference", column) if there.size else there


def weight_losses(run: Run) -> dict[str, WeightLosses]:
    """The weight-flatness probes of a run by part: `test`, `training`, `held-out`.

    Raises:
        RunFolderError: two protocols were measured on one part, so the result is ambiguous.
    """
    found: dict[str, WeightLosses] = {}
    for name, facts in _of_kind(run, "weight-flatness").items():
        if not {"part", "around", "ascent"} <= set(facts.facts):
            raise RunFolderError(f"{run.path}: probe {name} is damaged: it names no protocol")
        part = str(facts.facts["part"])
        if part in found:
            raise RunFolderError(
                f"{run.path} holds two protocols of weight flatness on {part} samples, {name} and "
                f"{found[part].facts.name}; measure into another folder, or delete one"
            )
        found[part] = WeightLosses(facts, load_tables(run, facts)["weight_losses"])
    return found


def landscapes(run: Run) -> list[pd.DataFrame]:
    """The landscapes of a run: rows for `sample`, `direction` and `t`."""
    probes = _of_kind(run, "landscape").values()
    return [load_tables(run, facts)["landscape"] for facts in probes]


def _of_kind(run: Run, kind: str) -> dict[str, ProbeFacts]:
    return {
        name: facts
        for name, facts in load_probes(run).items()
        if facts.ran and facts.facts.get("kind") == kind
    }


def mean(values: np.ndarray) -> float | None:
    """None where there is nothing, or a loss was not finite: then it was not measured."""
    found = float(values.mean()) if values.size else math.nan
    return found if math.isfinite(found) else None


def worst(rises: np.ndarray) -> float | None:
    """The largest mean over the samples; at least 0, because ν = 0 lies in the ball too."""
    if not rises.size or not np.isfinite(rises).all():
        return None
    return max(0.0, float(rises.mean(axis=1).max()))


def ends(values: np.ndarray, seed: int = 0) -> Ends:
    """The 95% interval of the mean over all of a matrix: rows are ν, columns samples.

    Percentiles of a bootstrap that draws rows and columns anew, both at once (Owen 2007): a little
    wide, never narrow.
    """
    if not values.size or not np.isfinite(values).all():
        return None
    generator = np.random.default_rng(seed)
    rows, columns = values.shape
    of_rows = generator.multinomial(rows, np.full(rows, 1 / rows), size=_RESAMPLES) / rows
    of_columns = generator.multinomial(columns, np.full(columns, 1 / columns), size=_RESAMPLES)
    means = ((of_rows @ values) * of_columns).sum(axis=1) / columns
    outside = (1 - CONFIDENCE_LEVEL) / 2
    low, high = np.quantile(means, [outside, 1 - outside])
    return float(low), float(high)
