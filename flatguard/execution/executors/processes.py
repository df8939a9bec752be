"""Carries out tasks in several processes on this machine."""

from __future__ import annotations

import concurrent.futures as futures
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.synchronize import Event
from typing import Any

import torch

from flatguard.environment.system import processors
from flatguard.errors import EnvironmentProblem
from flatguard.execution.executors.blocks import attack_by
from flatguard.execution.executors.executor import (
    MAX_DEATHS,
    Crew,
    Finished,
    Task,
    Work,
    Workers,
    counted_together,
)
from flatguard.execution.executors.main_guard import MainGuard, main_guard
from flatguard.execution.executors.worker import Share, WorkerInput, carry_out, sendable
from flatguard.execution.progress import Silent
from flatguard.request import NO_LIMITS


@dataclass(frozen=True)
class Processes:
    """Several processes on this machine."""

    workers: int

    @property
    def threads(self) -> int:
        """The number that torch has now: rounding may depend on it, and the number of workers
        must not change the evidence.
        """
        return torch.get_num_threads()

    def attack(self, work: Work) -> None:
        """Attack the blocks; where a worker dies, new workers attack what it did not finish.

        Raises:
            UsageError: the workers import a script that starts the evaluation again.
            EnvironmentProblem: no worker finishes a block.
        """
        with self.start(Crew.of(work)) as workers:
            attack_by(workers, work)

    @contextmanager
    def start(self, crew: Crew) -> Iterator[Workers]:
        """Start the processes; where one dies, a new one does what it did not finish."""
        threads = crew.run.manifest.device.get("threads", 1)
        count = self.workers if crew.most is None else max(1, min(self.workers, crew.most))
        if count * threads > processors() and threads > 1:
            crew.progress.log(
                f"{count} workers with {threads} threads each share {processors()} cores; "
                "--threads 1 may be faster, for one worker and for several"
            )
        with main_guard() as guard:
            pool = _Pool(crew, count, guard)
            with counted_together(crew, pool.slots.own):
                try:
                    yield pool
                except BaseException as error:
                    pool.end(error)
                    raise
                pool.end()


class _Slots:
    """Counters of forward passes, one for each task at a time and one for this process.

    Each has one writer, so that no lock is left behind by a worker that is killed.
    """

    def __init__(self, count: int):
        self.values = multiprocessing.get_context("spawn").RawArray("q", count + 1)
        self.free = list(range(1, count + 1))
        self.own = _Slot(self.values, 0)


@dataclass(frozen=True)
class _Slot:
    values: Any
    number: int

    def add(self, forwards: int) -> int:
        """Add forward passes; returns the sum over all slots."""
        self.values[self.number] += forwards
        return sum(self.values)


@dataclass(frozen=True)
class _Given:
    """A submitted task, and the slot that its forward passes are counted in."""

    task: Task
    slot: int


class _Pool:
    """Worker processes; a task waits while all of them are busy, so that none waits for one."""

    def __init__(self, crew: Crew, count: int, guard: MainGuard):
        self._crew, self._count, self._guard = crew, count, guard
        self.slots = _Slots(count + 1)
        self._spawn = multiprocessing.get_context("spawn")
        self._stop = self._spawn.Event()
        self._waiting: dict[futures.Future[Any], _Given] = {}
        self._deaths = 0
        self._pool = self._new_pool()

    @property
    def room(self) -> int:
        """One task for each process, and one that waits."""
        return len(self.slots.free)

    @property
    def busy(self) -> int:
        """How many tasks were given to the processes."""
        return len(self._waiting)

    def submit(self, task: Task) -> None:
        """Give a task to the next free process."""
        self._give(_Given(task, self.slots.free.pop(0)))

    def next(self) -> Finished:
        """Wait for a task that ends.

        Raises:
            UsageError: the workers import a script that starts the evaluation again.
            EnvironmentProblem: no worker finishes a task.
        """
        while True:
            done, _ = futures.wait(self._waiting, return_when=futures.FIRST_COMPLETED)
            future = min(done, key=lambda each: self._waiting[each].slot)
            try:
                result = future.result()
            except BrokenProcessPool as error:
                self._begin_again(error)
                continue
            given = self._waiting.pop(future)
            self.slots.free.append(given.slot)
            self._deaths = 0
            return Finished(given.task, result)

    def end(self, error: BaseException | None = None) -> None:
        """End the processes. No worker may write to the run after this: it may be removed."""
        if error is not None:
            if not isinstance(error, Exception):
                self._stop.set()
            elif self._count > 1 and self._waiting and not isinstance(error, EnvironmentProblem):
                self._crew.progress.log("waiting for the other workers to finish what they do")
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _give(self, given: _Given) -> None:
        budget = self._crew.compute_budget
        began = None if budget.limits == NO_LIMITS else time.monotonic() - budget.seconds
        with sendable():
            future = self._pool.submit(_in_process, given.task, given.slot, began)
        self._waiting[future] = given

    def _begin_again(self, error: BrokenProcessPool) -> None:
        """New processes do what those that died did not finish."""
        self._guard.check()
        self._deaths += 1
        if self._deaths >= MAX_DEATHS:
            raise EnvironmentProblem(
                f"workers died {MAX_DEATHS} times and finished nothing; is the memory enough for "
                f"{self._count} of them?"
            ) from error
        self._crew.progress.log("a worker died; what it did not finish is done again")
        self._pool.shutdown(wait=True, cancel_futures=True)
        left = [given for future, given in self._waiting.items() if not _has_result(future)]
        self._waiting = {f: given for f, given in self._waiting.items() if _has_result(f)}
        self._pool = self._new_pool()
        for given in left:
            self._give(given)

    def _new_pool(self) -> futures.ProcessPoolExecutor:
        given = (WorkerInput.of(self._crew), self._stop, self.slots.values)
        return futures.ProcessPoolExecutor(self._count, self._spawn, _begin_process, given)


def _has_result(future: futures.Future[Any]) -> bool:
    if not future.done() or future.cancelled():
        return False
    return not isinstance(future.exception(), BrokenProcessPool)


class _StopListener(Silent):
    """Interrupts a task once the process that started the workers is interrupted."""

    def __init__(self, stop: Event):
        self._stop = stop

    def called(self, rows: int) -> None:
        if self._stop.is_set():
            raise KeyboardInterrupt


@dataclass(frozen=True)
class _Process:
    given: WorkerInput
    listener: _StopListener
    values: Any


_process: _Process | None = None


def _begin_process(given: WorkerInput, stop: Event, values: Any) -> None:
    global _process
    _process = _Process(given, _StopListener(stop), values)
    # A terminal sends SIGINT to every process; the workers listen to `stop` instead.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this worker when its parent is killed; otherwise it would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _in_process(task: Task, slot: int, began: float | None) -> Any:
    """Carry out a task; `began` is on the clock that all processes of a machine share."""
    assert _process is not None, "the pool's initializer ran"
    share = None
    if began is not None:
        share = Share(_Slot(_process.values, slot), time.monotonic() - began)
    return carry_out(_process.given, task, share, _process.listener)
