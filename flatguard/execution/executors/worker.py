"""What a worker does in a process of its own: load the run once, then attack its blocks."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from flatguard.environment.caller import own_process
from flatguard.errors import UsageError, one_line
from flatguard.execution.compute_budget import ComputeBudget
from flatguard.execution.context import EvaluationContext
from flatguard.execution.executors.executor import Work, attack_unless_committed
from flatguard.execution.origin import Origin
from flatguard.execution.progress import ProgressReporter, Silent
from flatguard.execution.reopening import reopen
from flatguard.request import NO_LIMITS
from flatguard.runs.facts import BlockPlan, SampleFailure
from flatguard.runs.run import Run, load_run


@dataclass(frozen=True)
class WorkerInput:
    """All that a worker needs to load a run.

    Attributes:
        folder: the run's folder or address.
        identity: the run's identity; another run may lie in the same folder later.
        origin: the model and the data that came from Python and cannot be loaded by name.
        working_folder: the folder that relative names start from.
    """

    folder: str
    identity: str
    origin: Origin
    working_folder: str

    @classmethod
    def of(cls, work: Work) -> WorkerInput:
        """The input of the workers that share this work."""
        run, origin = work.run, work.context.origin
        return cls(str(run.storage), run.manifest.identity, origin, str(Path.cwd()))


_loaded: tuple[EvaluationContext, Run] | None = None


@own_process()
def attack_in_worker(
    given: WorkerInput,
    plan: BlockPlan,
    max_failures: int,
    progress: ProgressReporter | None = None,
) -> tuple[SampleFailure, ...]:
    """Attack one block; the run is loaded by the first call and kept for the next ones."""
    context, run = _load(given)
    unlimited = ComputeBudget(NO_LIMITS)
    return attack_unless_committed(
        context, run, plan, max_failures, progress or Silent(), unlimited
    )


def _load(given: WorkerInput) -> tuple[EvaluationContext, Run]:
    global _loaded
    if _loaded is not None:
        run = _loaded[1]
        if (str(run.storage), run.manifest.identity) == (given.folder, given.identity):
            return _loaded
    if Path(given.working_folder).is_dir():
        os.chdir(given.working_folder)
    run = load_run(given.folder, blocks=False)
    torch.set_num_threads(run.manifest.device.get("threads", torch.get_num_threads()))
    _loaded = reopen(run, given.origin), run
    return _loaded


@contextmanager
def sendable() -> Iterator[None]:
    """Turn an error of pickle into advice.

    Raises:
        UsageError: the model or the data from Python cannot be sent to another process.
    """
    try:
        yield
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise UsageError(
            f"this model or data cannot be sent to other processes ({one_line(error)}); give it by "
            "name or path, or attack in this process"
        ) from error
