"""What a worker does in a process of its own: load the run once, then carry out tasks."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from flatguard.environment.caller import own_process
from flatguard.errors import UsageError, one_line
from flatguard.execution.compute_budget import ComputeBudget, Counter
from flatguard.execution.executors.executor import Crew, Task, Worker
from flatguard.execution.origin import Origin
from flatguard.execution.progress import ProgressReporter, Silent
from flatguard.execution.reopening import reopen
from flatguard.request import NO_LIMITS, Limits
from flatguard.runs.run import load_run
from flatguard.targets import Target


@dataclass(frozen=True)
class WorkerInput:
    """All that a worker needs to load a run.

    Attributes:
        folder: the run's folder or address.
        identity: the run's identity; another run may lie in the same folder later.
        origin: the model and the data that came from Python and cannot be loaded by name.
        working_folder: the folder that relative names start from.
        limits: of all workers together.
        surrogates: other models that tasks need.
    """

    folder: str
    identity: str
    origin: Origin
    working_folder: str
    limits: Limits = NO_LIMITS
    surrogates: tuple[Target, ...] = ()

    @classmethod
    def of(cls, crew: Crew) -> WorkerInput:
        """The input of the workers that are started together."""
        run, limits = crew.run, crew.compute_budget.limits
        folder, identity = str(run.storage), run.manifest.identity
        origin, here = crew.context.origin, str(Path.cwd())
        return cls(folder, identity, origin, here, limits, tuple(crew.surrogates))

    @property
    def key(self) -> tuple[str, ...]:
        """What tells it apart from the input for another run, or with other surrogates."""
        return (self.folder, self.identity, *(each.weights_sha256 for each in self.surrogates))


@dataclass(frozen=True)
class Share:
    """A worker's share of a compute budget.

    Attributes:
        counter: counts the forward passes of all workers.
        seconds: since the run began.
    """

    counter: Counter
    seconds: float


@dataclass(frozen=True)
class _Loaded:
    key: tuple[str, ...]
    worker: Worker


_loaded: _Loaded | None = None


@own_process()
def carry_out(
    given: WorkerInput,
    task: Task,
    share: Share | None = None,
    progress: ProgressReporter | None = None,
) -> Any:
    """Carry out a task; the run is loaded by the first call and kept for the next ones.

    Args:
        given: the run.
        task: what to do.
        share: of the compute budget; None where nothing is limited.
        progress: receives progress updates.
    """
    worker = _load(given)
    worker.progress = progress or Silent()
    worker.compute_budget = (
        ComputeBudget(NO_LIMITS)
        if share is None
        else ComputeBudget.of_worker(given.limits, share.counter, share.seconds)
    )
    return task.carry_out(worker)


def _load(given: WorkerInput) -> Worker:
    global _loaded
    if _loaded is not None and _loaded.key == given.key:
        return _loaded.worker
    if Path(given.working_folder).is_dir():
        os.chdir(given.working_folder)
    run = load_run(given.folder, blocks=False)
    torch.set_num_threads(run.manifest.device.get("threads", torch.get_num_threads()))
    context, budget = reopen(run, given.origin), ComputeBudget(NO_LIMITS)
    _loaded = _Loaded(given.key, Worker(context, run, Silent(), budget, given.surrogates))
    return _loaded.worker


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
