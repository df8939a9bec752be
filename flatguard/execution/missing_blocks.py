"""Attacks the blocks that a run lacks: all of a new run, the rest of an interrupted one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from flatguard.errors import BudgetSpent, FlatguardError, ModelError
from flatguard.execution.batch_size import halve_batch
from flatguard.execution.context import EvaluationContext, resolve
from flatguard.execution.executors import Work
from flatguard.execution.plan import plan_run
from flatguard.execution.progress import ProgressReporter
from flatguard.execution.resources import Resources
from flatguard.runs import writing
from flatguard.runs.facts import BlockPlan, SampleFailure
from flatguard.runs.run import Run, load_run
from flatguard.runs.storage import RunStorage, open_storage


def attack_new_run(
    context: EvaluationContext,
    storage: RunStorage,
    command: Sequence[str],
    resources: Resources,
) -> tuple[EvaluationContext, Run]:
    """Plan a run and attack its blocks, in batches that fit the device's memory.

    Returns:
        The run and its context, which is another one where the batch was halved.

    Raises:
        RunFolderError, DataError, UsageError: from `plan_run`.
        ModelError, AttackError, BudgetSpent: from `attack_missing_blocks`.
    """
    while True:
        run = plan_run(context, storage, command, resources.progress)
        try:
            return context, attack_missing_blocks(context, run, resources)
        except BaseException as error:
            smaller = halve_batch(run, error)
            if smaller is None:
                writing.drop_if_nothing_was_recorded(run)
                raise
        # Outside of `except`: a handled error keeps the memory of the pass that raised it.
        resources.progress.log(
            f"batches of {context.block_size} do not fit the memory; this is another run, with "
            f"batches of {smaller.batch_size}"
        )
        storage.drop()
        context = resolve(smaller, context.origin.target, context.origin.dataset)


def attack_without_checks(
    context: EvaluationContext, out: Path, command: Sequence[str], progress: ProgressReporter
) -> Run:
    """Plan a run and attack it in this process; no check runs, and no sample may fail.

    Raises:
        RunFolderError, DataError: from `plan_run`.
        ModelError, AttackError: from `attack_missing_blocks`.
    """
    context = context.not_judged()
    run = plan_run(context, open_storage(out), command, progress)
    return attack_missing_blocks(context, run, Resources(progress=progress))


def attack_missing_blocks(context: EvaluationContext, run: Run, resources: Resources) -> Run:
    """Attack the blocks that a run lacks, in any order and by any executor.

    If the compute budget is spent after some blocks, the run keeps them and stays incomplete.

    Raises:
        ModelError, AttackError: from the attack. The blocks before it and what was recorded of
            this block are kept; the run stays incomplete.
        BudgetSpent: before the first block was finished.
    """
    storage, progress, shard = run.storage, resources.progress, resources.shard
    writing.sweep(storage.path)
    kept = load_run(storage)
    done = {block.plan.index for block in kept.blocks}
    planned = run.manifest.blocks
    mine = [plan for plan in planned if shard is None or shard.has(plan.index)]
    missing = [plan for plan in mine if plan.index not in done]
    if shard is not None and not mine:
        progress.log(
            f"part {shard.number} of {shard.count} is empty: the run has {len(planned)} blocks"
        )
    limit = resources.max_failures
    limit = context.max_failures if limit is None else limit
    tally = _Tally(context, limit, progress, sum(plan.stop - plan.start for plan in missing))
    try:
        tally.count([failure for block in kept.blocks for failure in block.failures])
        if resources.first_step is not None:
            resources.first_step(context, run, progress)
        tally.begin()
        if missing:
            resources.executor.attack(
                Work(
                    context, run, missing, limit, tally.finished, progress, resources.compute_budget
                )
            )
    except BaseException as error:
        left = load_run(storage)
        if isinstance(error, BudgetSpent):
            if left.blocks:
                progress.log(f"{error}; the finished blocks are judged")
                return left
            error.args = (f"{error} before the first {context.block_size} samples were attacked",)
        if (left.blocks or left.failures) and isinstance(error, FlatguardError):
            where = f"the incomplete run, with what was recorded, is in {storage}"
            error.args = (f"{error}; {where}",)
        raise
    return load_run(storage)


@dataclass
class _Tally:
    """Reports finished samples, and counts failed ones against the limit."""

    context: EvaluationContext
    limit: int
    progress: ProgressReporter
    left: int
    failures: list[SampleFailure] = field(default_factory=list)

    def begin(self) -> None:
        attack = self.context.attack
        if self.left:
            self.progress.stage(f"attack {attack.info.name}", self.left, attack.expected_calls())

    def finished(self, block: BlockPlan, failures: Sequence[SampleFailure]) -> None:
        self.left -= block.stop - block.start
        self.progress.advanced(block.stop - block.start)
        if self.context.layers:
            self.begin()  # measuring deeper layers was a stage of its own
        self.count(failures)

    def count(self, failures: Sequence[SampleFailure]) -> None:
        self.failures.extend(failures)
        if len(self.failures) > self.limit:
            first, name = self.failures[0], self.context.target.name
            raise ModelError(
                f"{name} failed on {len(self.failures)} samples, and --max-failures allows "
                f"{self.limit}; the first is sample {first.sample}: {first.error}"
            )
