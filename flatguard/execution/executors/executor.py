"""What an executor is: it attacks and commits the blocks of a run, in any order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from flatguard.execution.block import attack_block
from flatguard.execution.compute_budget import ComputeBudget
from flatguard.execution.context import EvaluationContext
from flatguard.execution.progress import ProgressReporter
from flatguard.runs.facts import BlockPlan, SampleFailure
from flatguard.runs.run import Run

MAX_DEATHS = 3
"""So many workers in a row may die without a finished block; then the run ends with an error."""


@dataclass(frozen=True)
class Work:
    """The input of an executor.

    Attributes:
        context: the model, the data and the attack.
        run: the run that the blocks belong to.
        plans: the blocks to attack and commit.
        max_failures: the number of samples of a block on which the model may raise.
        finished: called after each block with the samples that failed; it may raise.
        progress: receives progress updates.
        compute_budget: what may be spent; only the in-process executor counts it.
    """

    context: EvaluationContext
    run: Run
    plans: Sequence[BlockPlan]
    max_failures: int
    finished: Callable[[BlockPlan, Sequence[SampleFailure]], None]
    progress: ProgressReporter
    compute_budget: ComputeBudget


class Executor(Protocol):
    """Attacks the blocks of a run."""

    @property
    def threads(self) -> int:
        """The threads of a worker, where the request does not set them."""

    def attack(self, work: Work) -> None:
        """Attack and commit the blocks, in any order."""


def attack_unless_committed(
    context: EvaluationContext,
    run: Run,
    plan: BlockPlan,
    max_failures: int,
    progress: ProgressReporter,
    compute_budget: ComputeBudget,
) -> tuple[SampleFailure, ...]:
    """Attack one block that no other process has committed; returns the samples that failed."""
    if run.storage.fetch_block(plan.index):
        return Run(run.storage, run.manifest).block(plan).failures
    return attack_block(context, run, plan, max_failures, progress, compute_budget)
