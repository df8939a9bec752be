"""The points that a run's attack visited, from the tables of its folder."""

from __future__ import annotations

import numpy as np
import pandas as pd

from flatguard.geometry.basin import Visited
from flatguard.runs.run import Run


def distance_column(norm: str | None) -> str:
    """The recorded distance that fits a norm best: Linf has its own, all others take L2."""
    return "linf" if norm == "Linf" else "l2"


def visited(run: Run) -> Visited:
    """All points of a run that belong to a sample for certain, in the order of the calls."""
    column = distance_column(run.request.norm)
    parts = list(run.paths("loss", "prediction", column))
    empty = pd.DataFrame({"sample": [], "loss": [], "prediction": [], column: []})
    rows = pd.concat(parts, ignore_index=True) if parts else empty
    return visited_of(rows, run.samples, column)


def visited_of(rows: pd.DataFrame, samples: pd.DataFrame, column: str) -> Visited:
    """From rows that are sorted by sample and, within one, by call.

    A loss that is not finite was not measured.
    """
    number = rows["sample"].to_numpy(np.int64)
    known = samples.set_index("sample").loc[number, ["clean_loss", "label"]]
    loss = rows["loss"].to_numpy(np.float64)
    rise = np.where(np.isfinite(loss), loss, np.nan) - known["clean_loss"].to_numpy(np.float64)
    wrong = rows["prediction"].to_numpy() != known["label"].to_numpy()
    return Visited(number, rows[column].to_numpy(np.float64), rise, wrong)
