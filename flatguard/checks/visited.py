"""The points that a run's attack visited, from the rows of its trajectory."""

from __future__ import annotations

import numpy as np
import pandas as pd

from flatguard.geometry.basin import Visited


def distance_column(norm: str | None) -> str:
    """The recorded distance that fits a norm best: `linf` for Linf, `l2` for all others."""
    return "linf" if norm == "Linf" else "l2"


def visited_of(rows: pd.DataFrame, samples: pd.DataFrame, column: str) -> Visited:
    """The visited points from rows that are sorted by sample and, within one, by call.

    A loss that is not finite counts as not measured.
    """
    number = rows["sample"].to_numpy(np.int64)
    known = samples.set_index("sample").loc[number, ["clean_loss", "label"]]
    loss = rows["loss"].to_numpy(np.float64)
    rise = np.where(np.isfinite(loss), loss, np.nan) - known["clean_loss"].to_numpy(np.float64)
    wrong = rows["prediction"].to_numpy() != known["label"].to_numpy()
    return Visited(number, rows[column].to_numpy(np.float64), rise, wrong)
