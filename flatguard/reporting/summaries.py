"""Summaries that several sections compute: medians, even subsets, accuracy by group."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from flatguard.checks.statistics import interval


@dataclass(frozen=True)
class GroupAccuracy:
    """How many samples of one group the model still classifies correctly."""

    group: float
    correct: int
    samples: int

    @property
    def share(self) -> float:
        """The accuracy."""
        return self.correct / self.samples

    @property
    def interval(self) -> tuple[float, float]:
        """Its exact 95% interval."""
        return interval(self.correct, self.samples)

    @property
    def note(self) -> str:
        """The interval in words."""
        return "95% {:.0%} to {:.0%}".format(*self.interval)


def accuracy_by(group: pd.Series, fooled: pd.Series) -> list[GroupAccuracy]:
    """The accuracy in each group, in ascending order of the group's value."""
    counts = (~fooled.astype(bool)).groupby(group).agg(["sum", "size"])
    return [
        GroupAccuracy(float(value), int(correct), int(samples))
        for value, correct, samples in counts.itertuples()
    ]


def finite_median(values: np.ndarray) -> float | None:
    """The median of the finite values; None if there are none."""
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if len(finite) else None


def evenly_spaced(count: int, most: int) -> np.ndarray:
    """At most `most` of the indices 0 to `count` - 1, evenly spaced, both ends included."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int))
