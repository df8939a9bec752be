"""Carries out tasks in several processes on this machine."""

from __future__ import annotations

import concurrent.futures as futures
import multiprocessing
import os
import signal
import threading
import time
from collections import deque
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

_QUEUED = 8
"""Tasks for each process, where the process that started them works, too, and comes back late."""


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
            assert workers is not None, "this process attacks nothing itself"
            attack_by(workers, work)

    @contextmanager
    def start(self, crew: Crew) -> Iterator[Workers | None]:
        """Start the processes; where one dies, a new one does what it did not finish.

        A process that works with them is one of them, so that no core waits while they start.
        """
        threads = crew.run.manifest.device.get("threads", 1)
        count = self.workers if crew.most is None else max(1, min(self.workers, crew.most))
        if count * threads > processors() and threads > 1:
            crew.progress.log(
                f"{count} workers with {threads} threads each share {processors()} cores; "
                "--threads 1 may be faster, for one worker and for several"
            )
        others = count - 1 if crew.starter_works else count
        if not others:
            yield None
            return
        with main_guard() as guard:
            pool = _Pool(crew, others, guard)
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
    """Worker processes; a task waits here while all of them are busy, and can be taken back."""

    def __init__(self, crew: Crew, count: int, guard: MainGuard):
        self._crew, self._count, self._guard = crew, count, guard
        self.slots = _Slots(_QUEUED * count if crew.starter_works else count + 1)
        self._spawn = multiprocessing.get_context("spawn")
        self._stop = self._spawn.Event()
        self._queue: deque[_Given] = deque()
        self._given: dict[futures.Future[Any], _Given] = {}
        self._lock = threading.RLock()  # of both: a thread of the pool hands out, too
        self._deaths = 0
        self._broken: BrokenProcessPool | None = None
        self._pool = self._new_pool()

    @property
    def room(self) -> int:
        """One task for each process, and some that wait."""
        return len(self.slots.free)

    @property
    def busy(self) -> int:
        """How many tasks were submitted and not returned."""
        with self._lock:
            return len(self._given) + len(self._queue)

    @property
    def leaves_work(self) -> bool:
        """Whether this process works, too, and no task has ended meanwhile."""
        with self._lock:
            return self._crew.starter_works and not any(future.done() for future in self._given)

    def submit(self, task: Task) -> None:
        """Give a task to the next free process.

        Raises:
            UsageError, EnvironmentProblem: as `next`.
        """
        with self._lock:
            self._queue.append(_Given(task, self.slots.free.pop(0)))
            self._hand_out()
        self._replace_the_dead()

    def take_back(self) -> Task | None:
        """The last submitted task, if it still waits here."""
        with self._lock:
            if not self._queue:
                return None
            given = self._queue.pop()
            self.slots.free.append(given.slot)
            return given.task

    def next(self) -> Finished:
        """Wait for a task that ends.

        Raises:
            UsageError: the workers import a script that starts the evaluation again.
            EnvironmentProblem: no worker finishes a task.
        """
        while True:
            self._replace_the_dead()
            with self._lock:
                running = list(self._given)
            done, _ = futures.wait(running, return_when=futures.FIRST_COMPLETED)
            future = min(done, key=lambda each: self._given[each].slot)
            try:
                result = future.result()
            except BrokenProcessPool as error:
                self._begin_again(error)
                continue
            with self._lock:
                given = self._given.pop(future)
                self.slots.free.append(given.slot)
            self._deaths = 0
            return Finished(given.task, result)

    def end(self, error: BaseException | None = None) -> None:
        """End the processes. No worker may write to the run after this: it may be removed."""
        with self._lock:
            self._queue.clear()
        if error is not None:
            if not isinstance(error, Exception):
                self._stop.set()
            elif self._count > 1 and self._given and not isinstance(error, EnvironmentProblem):
                self._crew.progress.log("waiting for the other workers to finish what they do")
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _hand_out(self) -> None:
        """Give each free process the task that waits longest."""
        with self._lock:
            while self._queue and sum(not each.done() for each in self._given) < self._count:
                given = self._queue.popleft()
                try:
                    self._give(given)
                except BrokenProcessPool as error:
                    self._queue.appendleft(given)
                    self._broken = error
                    return

    def _give(self, given: _Given) -> None:
        budget = self._crew.compute_budget
        began = None if budget.limits == NO_LIMITS else time.monotonic() - budget.seconds
        with sendable():
            future = self._pool.submit(_in_process, given.task, given.slot, began)
        self._given[future] = given
        future.add_done_callback(self._ended)

    def _ended(self, future: futures.Future[Any]) -> None:
        """Hand out the next task at once, even while this process works; a thread calls it."""
        if _has_result(future):
            self._hand_out()

    def _replace_the_dead(self) -> None:
        """Begin again where a process died while it had no task."""
        if self._broken is not None:
            self._begin_again(self._broken)

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
        with self._lock:
            left = [given for future, given in self._given.items() if not _has_result(future)]
            self._given = {f: given for f, given in self._given.items() if _has_result(f)}
            self._queue.extendleft(reversed(left))
            self._pool, self._broken = self._new_pool(), None
            self._hand_out()

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
