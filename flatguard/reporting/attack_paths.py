"""Loss and log κ along the attack: quantiles over samples for each step, and single paths.

Tables of many million rows are read block by block, three columns and the samples that are asked
for.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from flatguard.runs.run import Run

LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)
MOST_STEPS = 160
"""More steps than these are thinned out evenly: a figure has no more places to show them."""


@dataclass(frozen=True)
class Paths:
    """The attack's own calls on some samples, by sample and step, as columns of equal length.

    Attributes:
        sample: number in the data set; sorted.
        step: of the sample's own calls, from 0.
        loss: cross-entropy.
        log_kappa: NaN where it was not measured.
    """

    sample: np.ndarray
    step: np.ndarray
    loss: np.ndarray
    log_kappa: np.ndarray

    def __len__(self) -> int:
        return len(self.sample)

    def of(self, sample: int) -> Paths:
        """One sample's path."""
        low, high = np.searchsorted(self.sample, [sample, sample + 1])
        part = slice(int(low), int(high))
        return Paths(self.sample[part], self.step[part], self.loss[part], self.log_kappa[part])


@dataclass(frozen=True)
class Bands:
    """Quantiles over samples: `values[i]` is `LEVELS[i]` at each step; `count` samples there."""

    step: np.ndarray
    values: np.ndarray
    count: np.ndarray


def read_paths(run: Run, samples: np.ndarray) -> Paths:
    """The attack's own calls on these samples, of all blocks; nothing where it made none."""
    empty = pd.DataFrame({"sample": [], "loss": [], "log_kappa": []})
    tables = run.paths("loss", "log_kappa")
    parts = [_part(rows[np.isin(rows["sample"], samples)]) for rows in tables] or [_part(empty)]
    return Paths(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def _part(rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Rows that are sorted by sample and call; the step counts a sample's rows."""
    sample = rows["sample"].to_numpy(np.int64)
    index = np.arange(len(sample))
    begins = np.concatenate([[True], sample[1:] != sample[:-1]])[: len(sample)]
    first = np.maximum.accumulate(np.where(begins, index, 0))
    values = [rows[name].to_numpy(np.float32) for name in ("loss", "log_kappa")]
    return sample, (index - first).astype(np.int32), values[0], values[1]


def bands(paths: Paths, column: str, samples: np.ndarray) -> Bands:
    """Quantiles of `loss` or `log_kappa` over these samples, for each step that any of them has."""
    values = getattr(paths, column)
    chosen = np.isin(paths.sample, samples) & np.isfinite(values)
    step, values = paths.step[chosen], values[chosen]
    order = np.lexsort((values, step))
    step, values = step[order], values[order]
    steps, begins, count = np.unique(step, return_index=True, return_counts=True)
    if len(steps) > MOST_STEPS:
        kept = np.unique(np.linspace(0, len(steps) - 1, MOST_STEPS).round().astype(int))
        steps, begins, count = steps[kept], begins[kept], count[kept]
    rows = [values[begins + np.rint(level * (count - 1)).astype(int)] for level in LEVELS]
    return Bands(steps, np.stack(rows), count)
