"""What a check is: probes that gather evidence with the model, and a judgement that reads it.

A check is one module of this package (or of another distribution, by an entry point in the group
`flatguard.checks`) with a line `NAME = "its-name"` and a `CHECK = Check(NAME, ...)`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from flatguard.checks.evidence import Evidence, ProbeEvidence
from flatguard.checks.finding import Finding
from flatguard.request import Checks

if TYPE_CHECKING:
    from flatguard.checks.context import CheckContext, Rows

_Gather = Callable[["CheckContext", int], ProbeEvidence]
"""Experiments with the model, given what the level spends on a sample; it judges nothing."""

_Judge = Callable[[Evidence, float], Finding]
"""Reads evidence, given the tolerated overestimate; it has no model, and needs none."""


def every_level(amount: int) -> dict[Checks, int]:
    """The same amount at every level."""
    return {"fast": amount, "standard": amount, "full": amount}


def _survivors(context: CheckContext, amount: int) -> np.ndarray:
    return context.survivors


def not_fooled_yet(context: CheckContext, amount: int) -> np.ndarray:
    """The survivors that no evidence stored so far has fooled."""
    fooled = np.array(sorted(Evidence.of_samples(context.run).fooled), np.int64)
    return np.setdiff1d(context.survivors, fooled)


@dataclass(frozen=True)
class InParts:
    """A probe's experiment on many samples, which several processes may gather together.

    A part is at most a batch of one block of the run. What is measured on it depends on no other
    part, and its random numbers begin with seeds of its own.

    Attributes:
        gather: the experiment on these batches; on none of them where there is no sample.
        samples: the numbers of the samples, given what the level spends on one.
    """

    gather: Callable[[CheckContext, int, Iterable[Rows]], ProbeEvidence]
    samples: Callable[[CheckContext, int], np.ndarray] = _survivors

    def __call__(self, context: CheckContext, amount: int) -> ProbeEvidence:
        """The experiment on all samples, here and at once."""
        return self.gather(context, amount, context.rows(self.samples(context, amount)))


@dataclass(frozen=True)
class Probe:
    """One experiment of a check. Its evidence is kept in the run folder, under `probes/NAME/`.

    Attributes:
        name: a stored name begins with it.
        gather: runs the experiment; `InParts` where several processes may share it.
        levels: the levels that run it, each with what it spends on a sample: gradient steps,
            queries or forward passes.
        cost: about how many sample-forwards it takes, for the estimate that is logged.
        order: probes run in this order. Probes with determinism's 0 run before all others are
            estimated, because a randomised target needs more passes.
        stored_as: its full name in the run folder, where that depends on what is spent; None
            where there is nothing to do.
        searches: whether it needs a norm that gradient searches support.
        per_survivor: whether its progress counts survivors.
        reads: the probes whose evidence it reads, by `context.stored`. Another process may run it
            once theirs is stored. None: it may read all that is stored before it, so this process
            runs it then.
        waits: whether its samples depend on all evidence before it.
    """

    name: str
    gather: _Gather | InParts
    levels: Mapping[Checks, int]
    cost: Callable[[CheckContext, int], float]
    order: int = 100
    stored_as: Callable[[CheckContext, int], str | None] | None = None
    searches: bool = True
    per_survivor: bool = True
    reads: tuple[str, ...] | None = None
    waits: bool = False

    def stored_name(self, context: CheckContext, spent: int) -> str | None:
        """The name in the run folder; None where there is nothing to do."""
        return self.name if self.stored_as is None else self.stored_as(context, spent)


@dataclass(frozen=True)
class Check:
    """One question about the audited number.

    Attributes:
        name: as in the verdict and the report.
        source: the publication that the idea comes from.
        why: why the question matters, in a sentence or two for the report.
        judge: a pure function from evidence and tolerance to a finding.
        probes: the experiments that it adds; it may read those of other checks too.
        decisive: whether no verdict is `consistent` without this check.
    """

    name: str
    source: str
    why: str
    judge: _Judge
    probes: tuple[Probe, ...] = ()
    decisive: bool = False
