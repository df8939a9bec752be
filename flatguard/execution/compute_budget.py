"""How much a run may spend, in forward passes and minutes, and what it has spent.

The evidence says what its blocks and probes took. It does not say what was spent on a block that
was interrupted, or on the search for samples that fail, because its bytes must not depend on that.
`spent.json`, beside the evidence, does. It can be deleted; then only the evidence counts.
"""

from __future__ import annotations

import time
from contextlib import suppress

from pydantic import BaseModel, ConfigDict

from flatguard.errors import BudgetSpent, NoRoom, RunFolderError
from flatguard.request import NO_LIMITS, Limits
from flatguard.runs.check_evidence import price_of_checks
from flatguard.runs.facts import Number
from flatguard.runs.json_files import read_json, write_text
from flatguard.runs.run import Run
from flatguard.runs.untrusted import is_plain_file

_SPENT = "spent.json"


class ComputeBudget:
    """What is left of a run's limits.

    Args:
        limits: what may be spent.
        spent: forward passes that the run has made already.

    Attributes:
        forwards: forward passes so far, with those of before.
    """

    def __init__(self, limits: Limits, spent: int = 0):
        self.limits, self.forwards = limits, spent
        self._began = time.monotonic()

    @property
    def seconds(self) -> float:
        """The time since this budget was made."""
        return time.monotonic() - self._began

    def spend(self, forwards: int) -> None:
        """Count forward passes, before they are made.

        Raises:
            BudgetSpent: a limit is exceeded; every later call raises as well.
        """
        self.forwards += forwards
        most, minutes = self.limits.max_forwards, self.limits.max_minutes
        if most is not None and self.forwards > most:
            raise BudgetSpent(f"the budget of {most:,} forwards (--max-forwards) was spent")
        if minutes is not None and self.seconds > 60.0 * minutes:
            raise BudgetSpent(f"the budget of {minutes:g} minutes (--max-minutes) was spent")


class _Spent(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    forwards: Number


def record_spent(run: Run, compute_budget: ComputeBudget) -> None:
    """Write what was spent so far to `spent.json`, where the run has limits.

    A folder that cannot be written is no error here: writing the evidence reports it.
    """
    if compute_budget.limits != NO_LIMITS:
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
