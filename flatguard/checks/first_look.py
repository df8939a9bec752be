"""Expensive searches look at some survivors first where the model's gradients are straight.

An honest robust model has many survivors, and every search fails on nearly all of them. Where the
margin does what its gradient predicts (`GradientEvidence.is_straight`), a search is therefore made
on the survivors that came nearest to a boundary and on some that are spread over all others. If it
fools one that nothing else fooled, all survivors are searched. Elsewhere all are, at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from flatguard.checks.check import InParts, Probe
from flatguard.checks.context import CheckContext, evenly
from flatguard.checks.evidence import Evidence
from flatguard.request import Checks

TRUTH = "gradient-truth"
"""The probe whose fact `straight` says whether a first look may do."""

_LEVEL: Checks = "standard"
"""What this level and cheaper ones spend on a sample is spent in two looks; `full` searches all at
once where it spends more."""

_LEAST = 4
"""At least so many of the nearest survivors, and so many of the others, are looked at."""


@dataclass(frozen=True)
class FirstLook:
    """Which survivors a search looks at first, as shares of them.

    Attributes:
        nearest: those with the least of their clean margin left at the audited attack's example.
        spread: of the others, evenly spread.
    """

    nearest: float
    spread: float

    def samples(self, context: CheckContext) -> np.ndarray:
        """The survivors to search first; all of them where gradients are not straight."""
        survivors = context.survivors
        if not gradients_are_straight(context):
            return survivors
        table = context.samples.loc[survivors]
        left = table["adv_margin"].to_numpy("float64") / table["clean_margin"].to_numpy("float64")
        order = np.argsort(np.nan_to_num(left, nan=math.inf), kind="stable")
        near = survivors[np.sort(order[: self._count(self.nearest, survivors)])]
        others = np.setdiff1d(survivors, near)
        chosen: np.ndarray = np.union1d(near, evenly(others, self._count(self.spread, survivors)))
        return chosen

    @staticmethod
    def _count(share: float, survivors: np.ndarray) -> int:
        return max(_LEAST, math.ceil(share * len(survivors)))


def gradients_are_straight(context: CheckContext) -> bool:
    """Whether the probe gradient-truth found that the margin does what its gradient predicts."""
    return bool(context.stored(TRUTH).facts.get("straight", False))


def in_two_looks(probe: Probe, look: FirstLook) -> tuple[Probe, Probe]:
    """The probe with a first look, and the probe of the others after it.

    Args:
        probe: in parts; the next order after its own is free.
        look: which survivors come first.
    """
    gather = probe.gather
    assert isinstance(gather, InParts), "only a probe in parts has samples to choose from"
    reads = tuple(sorted({*(probe.reads or ()), TRUTH}))
    most = probe.levels[_LEVEL]
    chosen = partial(_chosen, look=look, most=most)
    first = replace(probe, gather=replace(gather, samples=chosen), reads=reads)
    others = replace(
        probe,
        name=f"rest-of-{probe.name}",
        gather=replace(gather, samples=partial(_others, look=look, stored=f"{probe.name}-")),
        levels={level: amount for level, amount in probe.levels.items() if amount <= most},
        cost=lambda context, amount: 0.0,  # the first look's cost is that of all survivors
        order=probe.order + 1,
        stored_as=partial(_named, probe),
        reads=reads,
        waits=True,
    )
    return first, others


def _named(probe: Probe, context: CheckContext, amount: int) -> str | None:
    name = probe.stored_name(context, amount)
    return None if name is None else f"rest-of-{name}"


def _chosen(context: CheckContext, amount: int, look: FirstLook, most: int) -> np.ndarray:
    return look.samples(context) if amount <= most else context.survivors


def _others(context: CheckContext, amount: int, look: FirstLook, stored: str) -> np.ndarray:
    left: np.ndarray = np.setdiff1d(context.survivors, look.samples(context))
    return left if _found_more(context, stored) else left[:0]


def _found_more(context: CheckContext, stored: str) -> bool:
    """Whether the search whose stored name begins so fools a survivor that nothing else fools."""
    by_it: set[int] = set()
    by_others: set[int] = set()
    for name, probe in Evidence.of_samples(context.run).probes.items():
        table = probe.tables.get("attempts")
        if table is not None:
            fooled = table.loc[table["fooled"].astype(bool), "sample"].astype(int)
            (by_it if name.startswith(stored) else by_others).update(fooled)
    return bool(by_it - by_others)
