"""Loss and log sharpness along the attack: quantiles over samples at each step, and single paths.

A trajectory may have many million rows. It is read block by block, with the needed columns and
samples only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from flatguard.reporting.summaries import evenly_spaced
from flatguard.runs.run import Run

LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)
MOST_STEPS = 160
"""A figure shows at most this many steps, evenly spaced."""


@dataclass(frozen=True)
class AttackPaths:
    """The attack's own calls on some samples, as columns of equal length.

    Attributes:
        sample: number in the data set, ascending.
        step: number of the call among the sample's own calls, from 0.
        loss: cross-entropy.
        sharpness: its logarithm, by the run's measure; NaN where it was not measured.
    """

    sample: np.ndarray
    step: np.ndarray
    loss: np.ndarray
    sharpness: np.ndarray

    def __len__(self) -> int:
        return len(self.sample)

    def of(self, sample: int) -> AttackPaths:
        """The path of one sample."""
        part = slice(*np.searchsorted(self.sample, [sample, sample + 1]).tolist())
        return AttackPaths(
            self.sample[part], self.step[part], self.loss[part], self.sharpness[part]
        )


@dataclass(frozen=True)
class StepQuantiles:
    """Quantiles over samples at each step.

    Attributes:
        step: the steps, ascending.
        values: `values[i]` is the quantile `LEVELS[i]` at each step.
        count: how many samples were measured at each step.
    """

    step: np.ndarray
    values: np.ndarray
    count: np.ndarray


def read_attack_paths(run: Run, samples: np.ndarray) -> AttackPaths:
    """The attack's own calls on these samples; empty if it made none."""
    sharpness = run.sharpness.column
    parts = [rows[rows["sample"].isin(samples)] for rows in run.paths("loss", sharpness)]
    empty = pd.DataFrame({"sample": [], "loss": [], sharpness: []})
    table = pd.concat(parts, ignore_index=True) if parts else empty
    return AttackPaths(
        table["sample"].to_numpy(np.int64),
        table.groupby("sample").cumcount().to_numpy(np.int32),
        table["loss"].to_numpy(np.float32),
        table[sharpness].to_numpy(np.float32),
    )


def step_quantiles(paths: AttackPaths, column: str, samples: np.ndarray) -> StepQuantiles:
    """Quantiles of `loss` or `sharpness` over these samples at each step that has any of them."""
    values = getattr(paths, column)
    chosen = np.isin(paths.sample, samples) & np.isfinite(values)
    step, values = paths.step[chosen], values[chosen]
    order = np.lexsort((values, step))
    step, values = step[order], values[order]
    steps, begins, count = np.unique(step, return_index=True, return_counts=True)
    kept = evenly_spaced(len(steps), MOST_STEPS) if len(steps) else slice(0)
    steps, begins, count = steps[kept], begins[kept], count[kept]
    rows = [values[begins + np.rint(level * (count - 1)).astype(int)] for level in LEVELS]
    return StepQuantiles(steps, np.stack(rows), count)
