"""A part of a probe as a task: any process can gather it, and its evidence is the same."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from flatguard.checks.check import Check, InParts, Probe
from flatguard.checks.context import CheckContext
from flatguard.checks.evidence import ProbeEvidence, joined
from flatguard.checks.registry import load_checks
from flatguard.checks.search.attempts import KEPT_IMAGES
from flatguard.errors import BudgetSpent, one_line, ran_out_of_memory
from flatguard.runs.run import load_run

if TYPE_CHECKING:
    from flatguard.execution.executors import Worker


@dataclass(frozen=True)
class Situation:
    """What was measured about the target before the searches, and how many samples fit.

    Attributes:
        randomised, shares_draws, decides_alone, remembers: as in `CheckContext`.
        worth_attacking: as in `CheckContext`.
        batch_limit: as in `CheckContext`.
    """

    randomised: bool
    shares_draws: bool
    decides_alone: bool
    remembers: bool
    worth_attacking: frozenset[int]
    batch_limit: int

    @classmethod
    def of(cls, context: CheckContext) -> Situation:
        """The situation that a context is in."""
        return cls(
            context.randomised, context.shares_draws, context.decides_alone, context.remembers,
            frozenset(context.worth_attacking), context.batch_limit,
        )  # fmt: skip

    def apply_to(self, context: CheckContext) -> None:
        """Put another process's context into it."""
        context.randomised, context.shares_draws = self.randomised, self.shares_draws
        context.decides_alone, context.batch_limit = self.decides_alone, self.batch_limit
        context.worth_attacking = set(self.worth_attacking)
        if self.remembers and not context.remembers:
            context.forget_between_calls()


@dataclass(frozen=True)
class GatheredPart:
    """What a part returned.

    Attributes:
        facts, tables: as in `ProbeEvidence`.
        examples: as there, as arrays: tensors would be sent by a shared memory that may be small.
        forwards: rows that it sent forward, without `shared`.
        shared: rows that are sent forward once for the whole probe, by what they are for.
        seconds: that it took.
        lacks_memory: whether it did not fit the memory.
    """

    facts: dict[str, Any]
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    examples: dict[int, np.ndarray] = field(default_factory=dict)
    forwards: int = 0
    shared: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    lacks_memory: bool = False

    @property
    def evidence(self) -> ProbeEvidence:
        """It as evidence."""
        examples = {number: torch.from_numpy(image) for number, image in self.examples.items()}
        return ProbeEvidence(self.facts, self.tables, examples)


@dataclass(frozen=True, eq=False)
class Part:
    """Gather one part of a probe, or all of it.

    Attributes:
        probe: its name.
        order: of the probe; with its name this identifies it.
        amount: what the level spends on a sample.
        stored_name: the probe's name in the run folder.
        number: of the part.
        samples: its samples; None is a probe that is not in parts.
        situation: of the target.
        handed: the evidence that it reads, by the probe's name.
    """

    probe: str
    order: int
    amount: int
    stored_name: str
    number: int
    samples: np.ndarray | None
    situation: Situation
    handed: Mapping[str, ProbeEvidence]

    def carry_out(self, worker: Worker) -> GatheredPart:
        """Gather it, in the context that this process keeps."""
        if _KEPT not in worker.kept:
            worker.kept[_KEPT] = _Kept(_new_context(worker), load_checks())
        kept: _Kept = worker.kept[_KEPT]
        kept.context.meter.compute_budget = worker.compute_budget
        self.situation.apply_to(kept.context)
        return self.gather(kept.context, kept.probe(self.probe, self.order))

    def gather(self, context: CheckContext, probe: Probe) -> GatheredPart:
        """Gather it. An error is the reason why it could not run."""
        before, began = context.meter.forwards, time.perf_counter()
        context.meter.shared = {}
        context.handed = dict(self.handed)
        found, lacks_memory = self._found(context, probe)
        examples = {number: image.cpu().numpy() for number, image in found.examples.items()}
        return GatheredPart(
            found.facts, found.tables, examples, context.meter.forwards - before,
            context.meter.shared, time.perf_counter() - began, lacks_memory,
        )  # fmt: skip

    def _found(self, context: CheckContext, probe: Probe) -> tuple[ProbeEvidence, bool]:
        try:
            context.meter.add(0)  # raises where the budget is spent
            with context.seeded(f"{self.stored_name}, part {self.number}"):
                return self._gather(context, probe), False
        except Exception as error:
            return _why_not(error), ran_out_of_memory(error)

    def _gather(self, context: CheckContext, probe: Probe) -> ProbeEvidence:
        gather = probe.gather
        if self.samples is None or not isinstance(gather, InParts):
            return gather(context, self.amount)
        batches = context.rows(self.samples) if len(self.samples) else ()
        return gather.gather(context, self.amount, batches)


def _why_not(error: Exception) -> ProbeEvidence:
    """A model may raise anything; the reason is stored and shown."""
    if isinstance(error, BudgetSpent):
        return ProbeEvidence.missing(f"budget: {error}", budget=True)
    return ProbeEvidence.missing(f"{type(error).__name__}: {one_line(error)}")


def listed_parts(
    context: CheckContext, gather: InParts, amount: int
) -> list[np.ndarray] | GatheredPart:
    """The samples of each part; or why they cannot be listed."""
    before = context.meter.forwards
    try:
        return context.batches(gather.samples(context, amount))
    except Exception as error:  # a model may raise anything
        spent = context.meter.forwards - before
        lacks_memory = ran_out_of_memory(error)
        return GatheredPart(_why_not(error).facts, forwards=spent, lacks_memory=lacks_memory)


_KEPT = "checks"


@dataclass(frozen=True)
class _Kept:
    """What a worker keeps for the parts that follow."""

    context: CheckContext
    checks: Sequence[Check]

    def probe(self, name: str, order: int) -> Probe:
        """The probe of this name; every process has the same checks."""
        found = [probe for check in self.checks for probe in check.probes]
        return next(probe for probe in found if (probe.name, probe.order) == (name, order))


def _new_context(worker: Worker) -> CheckContext:
    run = load_run(worker.run.storage)  # with the blocks that others have committed
    context = CheckContext(worker.context, run, worker.progress, surrogates=worker.surrogates)
    context.meter.called = worker.progress.called
    return context


def whole(parts: Sequence[GatheredPart], keeps_all: bool, wasted: int = 0) -> GatheredPart:
    """The parts of a probe as one; what could not run ends it, as nothing after it was run.

    Args:
        parts: in their order.
        keeps_all: whether all examples are kept, not only the first `KEPT_IMAGES`.
        wasted: forward passes of attempts that did not fit the memory.
    """
    failed = next((i for i, part in enumerate(parts) if not part.evidence.ran), None)
    counted = list(parts if failed is None else parts[: failed + 1])
    found = joined([part.evidence for part in counted])
    shared = {name: rows for part in counted for name, rows in part.shared.items()}
    kept = list(found.examples.items())[: None if keeps_all else KEPT_IMAGES]
    return GatheredPart(
        found.facts,
        found.tables,
        {number: image.numpy() for number, image in kept},
        wasted + sum(part.forwards for part in counted) + sum(shared.values()),
        {},
        sum(part.seconds for part in counted),
    )
