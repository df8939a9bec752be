"""The forward passes that a run with limits has spent: `spent.json`, beside the evidence.

The evidence says what its blocks and probes took. It cannot say what was spent on a block that was
interrupted and attacked again, or on the search for samples that fail, and its bytes must not
depend on that. The file may be thrown away: then only what the evidence says counts.
"""

from __future__ import annotations

from contextlib import suppress

from pydantic import BaseModel, ConfigDict

from flatguard.errors import RunFolderError
from flatguard.execution.compute_budget import ComputeBudget
from flatguard.request import NO_LIMITS
from flatguard.runs.facts import Number
from flatguard.runs.probe_store import load_probes
from flatguard.runs.store import Run, parse, write_text
from flatguard.runs.untrusted import is_plain_file

SPENT = "spent.json"


class _Spent(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    forwards: Number


def record_spent(run: Run, compute_budget: ComputeBudget) -> None:
    """Write down what was spent by now, where the run has limits.

    Where the folder cannot be written, its evidence cannot either, and that is told.
    """
    if compute_budget.limits != NO_LIMITS:
        spent = _Spent(forwards=compute_budget.forwards)
        with suppress(OSError):
            write_text(run.path / SPENT, spent.model_dump_json(indent=2))


def load_spent(run: Run) -> int:
    """The forward passes that were spent on a run; at least those that its evidence has."""
    found = sum(block.sample_forwards for block in run.blocks)
    found += sum(failure.sample_forwards for failure in run.failures)
    found += sum(facts.sample_forwards for facts in load_probes(run).values())
    file = run.path / SPENT
    try:
        kept: _Spent | None = parse(_Spent, file) if is_plain_file(file) else None
    except RunFolderError:
        kept = None
    return found if kept is None else max(found, kept.forwards)
