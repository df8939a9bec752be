"""What a run is done with: executor, progress reporter, compute budget and shard."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from flatguard.execution.compute_budget import ComputeBudget
from flatguard.execution.executors import Executor, InProcess
from flatguard.execution.progress import ProgressReporter, Silent
from flatguard.execution.shard import Shard
from flatguard.request import NO_LIMITS

if TYPE_CHECKING:
    from flatguard.execution.context import EvaluationContext
    from flatguard.runs.run import Run


@dataclass(frozen=True)
class Resources:
    """What a run is done with. Nothing here changes the bytes of a block.

    Attributes:
        executor: attacks the blocks and gathers the evidence of the checks.
        progress: receives progress updates.
        compute_budget: what the run may spend.
        shard: the blocks to attack; None is all.
        max_failures: the number of samples on which the model may raise; None is the request's.
        first_step: is done before the first block is attacked; None does nothing.
    """

    executor: Executor = field(default_factory=InProcess)
    progress: ProgressReporter = field(default_factory=Silent)
    compute_budget: ComputeBudget = field(default_factory=lambda: ComputeBudget(NO_LIMITS))
    shard: Shard | None = None
    max_failures: int | None = None
    first_step: Callable[[EvaluationContext, Run, ProgressReporter], None] | None = None
