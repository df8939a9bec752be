"""What a run has spent of its limits: `spent.json`, beside the evidence.

The evidence says what its blocks and probes took. It cannot say what was spent on a block that was
interrupted and attacked again, or on the search for samples that fail, and its bytes must not
depend on that. The file may be thrown away: then only what the evidence says counts.
"""

from __future__ import annotations

from flatguard.allowance import NO_LIMITS, Allowance, Spent
from flatguard.errors import RunFolderError
from flatguard.runs.probe_store import load_probes
from flatguard.runs.store import Run, parse, write_text
from flatguard.runs.untrusted import is_plain_file

SPENT = "spent.json"


def record_spent(run: Run, allowance: Allowance) -> None:
    """Write down what was spent by now, where the run has limits.

    Raises:
        RunFolderError: the folder cannot be written.
    """
    if allowance.limits == NO_LIMITS:
        return
    try:
        write_text(run.path / SPENT, allowance.spent.model_dump_json(indent=2))
    except OSError as error:
        raise RunFolderError(f"cannot write {run.path / SPENT}: {error.strerror}") from error


def load_spent(run: Run) -> Spent:
    """What was spent on a run; at least what its evidence says."""
    forwards = sum(block.sample_forwards for block in run.blocks)
    forwards += sum(failure.sample_forwards for failure in run.failures)
    forwards += sum(facts.sample_forwards for facts in load_probes(run).values())
    seconds = run.seconds("attack")
    file = run.path / SPENT
    try:
        kept = parse(Spent, file) if is_plain_file(file) else Spent()
    except RunFolderError:
        kept = Spent()
    return Spent(forwards=max(kept.forwards, forwards), seconds=max(kept.seconds, seconds))
