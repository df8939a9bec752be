"""Interleaved timing: what is compared runs in turns, so that a slow minute slows both."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Ratio:
    """How much longer one thing takes than another, pair by pair.

    Attributes:
        median: of the paired ratios.
        lower, upper: the 95% bootstrap interval of that median (10,000 resamples, seed 0).
        seconds: median time of what is measured.
        base_seconds: median time of what it is measured against.
    """

    median: float
    lower: float
    upper: float
    seconds: float
    base_seconds: float

    def __str__(self) -> str:
        return (
            f"{self.median:6.3f} times (95% bound {self.upper:.3f}); "
            f"{self.seconds * 1e3:.2f} ms against {self.base_seconds * 1e3:.2f} ms"
        )


def interleaved(
    measured: Mapping[str, Callable[[], object]],
    base: Callable[[], object],
    repeats: int,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Ratio]:
    """Time all `repeats` times in turns, after one turn to warm up; the order alternates."""
    entries = [("base", base), *measured.items()]
    times: dict[str, list[float]] = {name: [] for name, _ in entries}
    for turn in range(repeats + 1):
        for name, function in entries if turn % 2 else entries[::-1]:
            began = clock()
            function()
            if turn:
                times[name].append(clock() - began)
    return {name: ratio_of(times[name], times["base"]) for name in measured}


def ratio_of(measured: Sequence[float], base: Sequence[float]) -> Ratio:
    """The ratio of what was measured in turns, pair by pair."""
    ratios = np.array(measured) / np.array(base)
    draws = np.random.default_rng(0).choice(ratios, (10_000, len(ratios)))
    lower, upper = np.quantile(np.median(draws, axis=1), (0.025, 0.975))
    return Ratio(
        float(np.median(ratios)),
        float(lower),
        float(upper),
        statistics.median(measured),
        statistics.median(base),
    )
