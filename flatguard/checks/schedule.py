"""Carries out the probes of a level by workers, and stores each in the order of the plan.

A part of a probe begins when what it reads is stored. Evidence is stored in the order in which one
process would gather it, whoever is done first. So a probe reads the same whatever the number of
workers, and a run that is killed goes on as one process would.

Limits end the checks as in one process, too. A part is begun beside others only if all of them are
expected to fit what is left of the forward passes, and a probe counts only if it and all before it
fit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from flatguard.checks.check import InParts, Probe
from flatguard.checks.context import CheckContext
from flatguard.checks.evidence import ProbeEvidence
from flatguard.checks.parts import GatheredPart, Part, Situation, listed_parts, whole
from flatguard.execution.compute_budget import ComputeBudget, record_spent, spent_forwards
from flatguard.execution.executors import Finished, Workers
from flatguard.geometry.ball import SEARCHED

_MORE = 1.5
"""A probe may cost more than it announces, by about this factor: repairs may be tried."""


@dataclass(frozen=True)
class Step:
    """A probe of the plan, with what it spends on a sample and its name in the run folder."""

    probe: Probe
    amount: int
    name: str

    @property
    def is_here(self) -> bool:
        """Whether only this process may gather it: it may read anything."""
        return self.probe.reads is None


@dataclass
class _Begun:
    """A step whose parts are known.

    Attributes:
        step: it.
        parts: in their order.
        results: of the parts that ended, by their number.
        submitted: how many parts were given to workers.
        wasted: forward passes of attempts that did not fit the memory.
    """

    step: Step
    parts: list[Part]
    results: dict[int, GatheredPart] = field(default_factory=dict)
    submitted: int = 0
    wasted: int = 0

    @property
    def ended(self) -> list[GatheredPart] | None:
        """The results that count, up to one that could not run; None while one is not known."""
        found = []
        for number in range(len(self.parts)):
            if number not in self.results:
                return None
            found.append(self.results[number])
            if not found[-1].evidence.ran:
                break
        return found

    @property
    def next(self) -> Part | None:
        """The next part to submit; None after the last one, and after one that failed."""
        failed = any(not result.evidence.ran for result in self.results.values())
        return None if failed or self.submitted == len(self.parts) else self.parts[self.submitted]

    def begin(self) -> Part:
        """The next part, which begins now."""
        part = self.next
        assert part is not None, "a part is left"
        self.submitted += 1
        return part


class Schedule:
    """The probes of a level.

    Args:
        context: of the process that started the workers.
        steps: in the order of the plan.
        workers: gather the parts; None is this process.
        store: publishes a step's evidence.
    """

    def __init__(
        self,
        context: CheckContext,
        steps: Sequence[Step],
        workers: Workers | None,
        store: Callable[[Step, GatheredPart], None],
    ):
        self._context, self._workers, self._store = context, workers, store
        self._left = list(steps)
        self._begun: dict[str, _Begun] = {}
        self._settled = self._budget.forwards
        self._over: GatheredPart | None = None
        self._done = _Done(context, steps)

    @property
    def _budget(self) -> ComputeBudget:
        return self._context.meter.compute_budget

    def run(self) -> None:
        """Gather and store all steps."""
        try:
            while self._left:
                if self._store_next():
                    continue
                part = self._begin_here()
                if self._workers is not None:
                    self._submit(self._workers, begun_here=int(part is not None))
                if part is not None:
                    self._gather_here(part)
                elif self._workers is not None and self._workers.busy:
                    self._receive(self._workers.next())
            while self._workers is not None and self._workers.busy:  # after a budget ended
                self._workers.next()
        finally:
            record_spent(self._context.run, self._budget)

    def _store_next(self) -> bool:
        """Store the next step of the plan, if its evidence is complete."""
        step = self._left[0]
        missing = self._refusal(step)
        if missing is not None:
            self._put(step, missing)
            return True
        begun = self._open(step)
        results = begun.ended
        if results is None:
            return False
        if results[-1].lacks_memory and self._context.batch_limit > 1:
            self._begin_again(begun, results)
            return False
        self._put(step, self._settle(whole(results, self._context.randomised, begun.wasted)))
        return True

    def _settle(self, found: GatheredPart) -> GatheredPart:
        """The evidence, if all before it and it itself fit the limit of forward passes."""
        self._settled += found.forwards
        most = self._budget.limits.max_forwards
        if found.evidence.ran and most is not None and self._settled > most:
            found = _missing(f"budget: {spent_forwards(most)}", found, budget=True)
        if found.facts.get("budget") and not found.evidence.ran:
            self._over = GatheredPart(found.facts)
        return found

    def _refusal(self, step: Step) -> GatheredPart | None:
        norm = self._context.budget.norm
        if step.probe.searches and norm not in SEARCHED:
            known = ", ".join(SEARCHED)
            return _missing(f"searches support {known}, not {norm}")
        return self._over

    def _put(self, step: Step, found: GatheredPart) -> None:
        self._left.pop(0)
        self._begun.pop(step.name, None)
        self._store(step, found)
        record_spent(self._context.run, self._budget)
        self._done.whole(step)

    def _begin_again(self, begun: _Begun, results: Sequence[GatheredPart]) -> None:
        context, name = self._context, begun.step.name
        wasted = whole(results, True, begun.wasted).forwards
        context.batch_limit = (context.batch_limit + 1) // 2
        context.progress.log(
            f"check {name} does not fit the memory; it begins again with at most "
            f"{context.batch_limit} samples at once"
        )
        # What others gathered with more samples at once is gathered again, as after this step.
        self._begun = {name: _opened(context, begun.step, wasted)}

    def _submit(self, workers: Workers, begun_here: int) -> None:
        """Give parts to the workers, as many as they take, beside what was begun here."""
        while workers.room:
            begun = self._next_to_begin(workers.busy + begun_here)
            if begun is None:
                return
            workers.submit(begun.begin())

    def _next_to_begin(self, busy: int) -> _Begun | None:
        """The first step of the plan with a part that may begin, beside so many others."""
        for step in self._left:
            if self._may_begin(step):
                begun = self._open(step)
                if begun.next is not None and self._fits(step, is_first=not busy):
                    return begun
        return None

    def _begin_here(self) -> Part | None:
        """The part that this process gathers now; None where it waits for the others."""
        workers = self._workers
        if workers is None or self._left[0].is_here:
            first = self._open(self._left[0])
            return None if first.next is None else first.begin()
        if not workers.leaves_work:
            return None
        begun = self._next_to_begin(workers.busy)
        if begun is not None:
            return begun.begin()
        part = workers.take_back()
        assert part is None or isinstance(part, Part)
        return part

    def _may_begin(self, step: Step) -> bool:
        if step.is_here or self._refusal(step) is not None:
            return False
        if step is self._left[0]:
            return True
        waiting = {other.name for other in self._left}
        return not step.probe.waits and not waiting & set(step.probe.reads or ())

    def _fits(self, step: Step, is_first: bool) -> bool:
        """Whether a step fits the limit with all before it, and what was begun after it."""
        most = self._budget.limits.max_forwards
        if most is None or (is_first and step is self._left[0]):
            return True
        last = self._left.index(step)
        before = [self._expected(s) for i, s in enumerate(self._left) if i <= last or self._ran(s)]
        return self._settled + sum(before) <= most

    def _ran(self, step: Step) -> bool:
        return step.name in self._begun and self._begun[step.name].submitted > 0

    def _expected(self, step: Step) -> float:
        """The forward passes that a step may take, by what is announced and what has ended."""
        begun = self._begun.get(step.name)
        ended = 0 if begun is None else sum(each.forwards for each in begun.results.values())
        return max(ended, _MORE * step.probe.cost(self._context, step.amount))

    def _gather_here(self, part: Part) -> None:
        """Gather a part in this process."""
        begun = self._begun.get(part.stored_name)
        if begun is not None:
            self._put_result(part, part.gather(self._context, begun.step.probe))

    def _receive(self, finished: Finished) -> None:
        part = finished.task
        assert isinstance(part, Part)
        self._put_result(part, finished.result)

    def _put_result(self, part: Part, result: GatheredPart) -> None:
        begun = self._begun.get(part.stored_name)
        if begun is not None and part in begun.parts:  # it was not begun again meanwhile
            begun.results[part.number] = result
            self._done.part(begun.step, part)

    def _open(self, step: Step) -> _Begun:
        if step.name not in self._begun:
            self._begun[step.name] = _opened(self._context, step)
        return self._begun[step.name]


def _opened(context: CheckContext, step: Step, wasted: int = 0) -> _Begun:
    """List a step's parts. Where it has no sample, the evidence of none is gathered here."""
    probe = step.probe
    handed = {name: context.stored(name) for name in probe.reads or ()}
    situation = Situation.of(context)

    def part(number: int, samples: np.ndarray | None) -> Part:
        return Part(
            probe.name, probe.order, step.amount, step.name, number, samples, situation, handed
        )

    if not isinstance(probe.gather, InParts):
        return _Begun(step, [part(0, None)], wasted=wasted)
    listed = listed_parts(context, probe.gather, step.amount)
    if isinstance(listed, list) and listed:
        parts = [part(number, samples) for number, samples in enumerate(listed)]
        return _Begun(step, parts, wasted=wasted)
    none = part(0, np.zeros(0, np.int64))
    found = listed if isinstance(listed, GatheredPart) else none.gather(context, probe)
    return _Begun(step, [none], {0: found}, 1, wasted)


def _missing(reason: str, spent: GatheredPart | None = None, **facts: object) -> GatheredPart:
    """The evidence of a step that could not run, with what it has spent in spite of that."""
    missing = ProbeEvidence.missing(reason, **facts).facts
    if spent is None:
        return GatheredPart(missing)
    return GatheredPart(missing, forwards=spent.forwards, seconds=spent.seconds)


class _Done:
    """Reports how many samples of all steps are done."""

    def __init__(self, context: CheckContext, steps: Sequence[Step]):
        self._progress = context.progress
        survivors = len(context.survivors)
        self._left = {step.name: survivors if step.probe.per_survivor else 1 for step in steps}
        if steps:
            context.progress.stage("checks", sum(self._left.values()))

    def part(self, step: Step, part: Part) -> None:
        """A part has ended; those of an attempt that is begun again count once."""
        if step.probe.per_survivor and part.samples is not None:
            self._advance(step, len(part.samples))

    def whole(self, step: Step) -> None:
        """A step is stored."""
        self._advance(step, self._left[step.name])

    def _advance(self, step: Step, samples: int) -> None:
        done = min(samples, self._left[step.name])
        self._left[step.name] -= done
        if done:
            self._progress.advanced(done)
