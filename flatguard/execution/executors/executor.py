"""What an executor is: it carries out the tasks of a run, such as blocks to attack, by workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from flatguard.execution.block import attack_block
from flatguard.execution.compute_budget import ComputeBudget, Counter, record_spent
from flatguard.execution.context import EvaluationContext
from flatguard.execution.progress import ProgressReporter
from flatguard.runs.facts import BlockPlan, SampleFailure
from flatguard.runs.run import Run
from flatguard.targets import Target

MAX_DEATHS = 3
"""So many workers in a row may die without a finished task; then the run ends with an error."""


@dataclass(frozen=True)
class Work:
    """The blocks that an executor attacks.

    Attributes:
        context: the model, the data and the attack.
        run: the run that the blocks belong to.
        plans: the blocks to attack and commit.
        max_failures: the number of samples of a block on which the model may raise.
        finished: called after each block with the samples that failed; it may raise.
        progress: receives progress updates.
        compute_budget: what may be spent, by all workers together.
    """

    context: EvaluationContext
    run: Run
    plans: Sequence[BlockPlan]
    max_failures: int
    finished: Callable[[BlockPlan, Sequence[SampleFailure]], None]
    progress: ProgressReporter
    compute_budget: ComputeBudget


@dataclass(frozen=True)
class Crew:
    """What workers are started for.

    Attributes:
        context: the model, the data and the attack.
        run: the run that their tasks belong to.
        progress: receives messages.
        compute_budget: what all workers may spend together.
        surrogates: other models that their tasks need.
        most: the most tasks that there can be at once.
        starter_works: whether the process that starts them carries out tasks, too. It is one of
            them where they run on the same machine.
    """

    context: EvaluationContext
    run: Run
    progress: ProgressReporter
    compute_budget: ComputeBudget
    surrogates: Sequence[Target] = ()
    most: int | None = None
    starter_works: bool = False

    @classmethod
    def of(cls, work: Work) -> Crew:
        """The workers that attack these blocks."""
        return cls(work.context, work.run, work.progress, work.compute_budget, most=len(work.plans))


@contextmanager
def counted_together(crew: Crew, counter: Counter) -> Iterator[None]:
    """Count forward passes with the workers until they have ended; then record their sum."""
    try:
        with crew.compute_budget.counted_by(counter):
            yield
    finally:
        record_spent(crew.run, crew.compute_budget)


@dataclass
class Worker:
    """A process with everything loaded, in which tasks are carried out.

    Attributes:
        context: the model, the data and the attack.
        run: the run; its blocks may have been read before others were committed.
        progress: receives progress updates; it may raise to interrupt the task.
        compute_budget: what all workers may spend together.
        surrogates: those of `Crew`.
        kept: what tasks keep for the ones that follow.
    """

    context: EvaluationContext
    run: Run
    progress: ProgressReporter
    compute_budget: ComputeBudget
    surrogates: Sequence[Target] = ()
    kept: dict[str, Any] = field(default_factory=dict)


class Task(Protocol):
    """A part of a run that any process can do, in any order; it is sent to it."""

    def carry_out(self, worker: Worker) -> Any:
        """Do it; returns what the process that started the workers needs to know."""


@dataclass(frozen=True)
class Finished:
    """A task that was carried out, and what it returned."""

    task: Task
    result: Any


class Workers(Protocol):
    """Processes that carry out tasks."""

    @property
    def room(self) -> int:
        """How many tasks may be submitted now."""

    @property
    def busy(self) -> int:
        """How many submitted tasks have not been returned by `next`."""

    @property
    def leaves_work(self) -> bool:
        """Whether the process that started them is to carry out a task now, and not to wait."""

    def submit(self, task: Task) -> None:
        """Give a task to the next free worker."""

    def take_back(self) -> Task | None:
        """The last submitted task, if no worker has taken it, for the process that submitted it."""

    def next(self) -> Finished:
        """Wait for a task that ends, and return it; raises what the task raised."""


class Executor(Protocol):
    """Carries out the tasks of a run by workers."""

    @property
    def threads(self) -> int:
        """The threads of a worker, where the request does not set them."""

    def attack(self, work: Work) -> None:
        """Attack and commit the blocks, in any order."""

    def start(self, crew: Crew) -> AbstractContextManager[Workers | None]:
        """Start workers, which end with the context; None where this process does everything."""


@dataclass(frozen=True)
class AttackedBlock:
    """A block that was attacked.

    Attributes:
        plan: which block.
        failures: the samples that failed.
        forwards: the forward passes that were spent on it; 0 where it was committed before.
    """

    plan: BlockPlan
    failures: tuple[SampleFailure, ...]
    forwards: int


@dataclass(frozen=True)
class AttackBlock:
    """Attack one block and commit it."""

    plan: BlockPlan
    max_failures: int

    def carry_out(self, worker: Worker) -> AttackedBlock:
        """Attack it, unless another process has committed it."""
        budget = worker.compute_budget
        before = budget.own
        failures = attack_unless_committed(
            worker.context, worker.run, self.plan, self.max_failures, worker.progress, budget
        )
        return AttackedBlock(self.plan, failures, budget.own - before)


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
