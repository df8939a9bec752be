"""How much a run may spend, in forward passes and minutes, and what it has spent.

The evidence says what its blocks and probes took. It does not say what was spent on a block that
was interrupted, or on the search for samples that fail, because its bytes must not depend on that.
`spent.json`, beside the evidence, does. It can be deleted; then only the evidence counts.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Protocol

from pydantic import BaseModel, ConfigDict

from flatguard.errors import BudgetSpent, NoRoom, RunFolderError
from flatguard.request import NO_LIMITS, Limits
from flatguard.runs.check_evidence import price_of_checks
from flatguard.runs.facts import Number
from flatguard.runs.json_files import read_json, write_text
from flatguard.runs.run import Run
from flatguard.runs.untrusted import is_plain_file

_SPENT = "spent.json"


class Counter(Protocol):
    """Counts the forward passes of a run; several processes may add to one."""

    def add(self, forwards: int) -> int:
        """Add forward passes; returns the sum of all processes."""


@dataclass
class OwnCounter:
    """Counts the forward passes of this process."""

    total: int

    def add(self, forwards: int) -> int:
        """Add forward passes; returns their sum."""
        self.total += forwards
        return self.total


class ComputeBudget:
    """What is left of a run's limits.

    Args:
        limits: what may be spent.
        spent: forward passes that the run has made already.

    Attributes:
        own: forward passes of this process.
        is_a_workers: whether this process was started by the one that the budget was made in.
    """

    def __init__(self, limits: Limits, spent: int = 0):
        self.limits = limits
        self._counter: Counter = OwnCounter(spent)
        self._began = time.monotonic()
        self.own, self.is_a_workers = 0, False

    @classmethod
    def of_worker(cls, limits: Limits, counter: Counter, seconds: float) -> ComputeBudget:
        """The budget of a run in one of its workers, so many seconds after the run began."""
        budget = cls(limits)
        budget._counter, budget.is_a_workers = counter, True
        budget._began -= seconds
        return budget

    @contextmanager
    def counted_by(self, counter: Counter) -> Iterator[None]:
        """Count together with workers, by a counter that they add to as well."""
        counter.add(self.forwards)
        self._counter = counter
        try:
            yield
        finally:
            self._counter = OwnCounter(counter.add(0))

    @property
    def forwards(self) -> int:
        """Forward passes so far, with those of before."""
        return self._counter.add(0)

    @property
    def seconds(self) -> float:
        """The time since this budget was made."""
        return time.monotonic() - self._began

    def spend(self, forwards: int) -> None:
        """Count forward passes, before they are made.

        Raises:
            BudgetSpent: a limit is exceeded; every later call raises as well.
        """
        self.own += forwards
        total = self._counter.add(forwards)
        most, minutes = self.limits.max_forwards, self.limits.max_minutes
        if most is not None and total > most:
            raise spent_forwards(most)
        if minutes is not None and self.seconds > 60.0 * minutes:
            raise BudgetSpent(f"the budget of {minutes:g} minutes (--max-minutes) was spent")

    def refund(self, forwards: int) -> None:
        """Count fewer forward passes: some that were counted before were not made."""
        self._counter.add(-forwards)


def spent_forwards(most: int) -> BudgetSpent:
    """The error of a run that may make no more forward passes."""
    return BudgetSpent(f"the budget of {most:,} forwards (--max-forwards) was spent")


class _Spent(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    forwards: Number


def record_spent(run: Run, compute_budget: ComputeBudget) -> None:
    """Write what was spent so far to `spent.json`, where the run has limits.

    The process that started the workers writes it: they would overwrite each other's sums.
    A folder that cannot be written is no error here: writing the evidence reports it.
    """
    if compute_budget.limits != NO_LIMITS and not compute_budget.is_a_workers:
        spent = _Spent(forwards=compute_budget.forwards)
        with suppress(OSError, NoRoom):
            write_text(run.path / _SPENT, spent.model_dump_json(indent=2))


def load_spent(run: Run) -> int:
    """The forward passes that a run has made; at least those that its evidence counts."""
    found = sum(block.sample_forwards for block in run.blocks)
    found += sum(failure.sample_forwards for failure in run.failures)
    found += price_of_checks(run)
    file = run.path / _SPENT
    try:
        kept: _Spent | None = read_json(_Spent, file) if is_plain_file(file) else None
    except RunFolderError:
        kept = None
    return found if kept is None else max(found, kept.forwards)
