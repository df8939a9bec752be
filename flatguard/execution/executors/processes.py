"""Attacks the blocks in several processes on this machine."""

from __future__ import annotations

import concurrent.futures as futures
import multiprocessing
import os
import signal
import threading
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.synchronize import Event

import torch

from flatguard.environment.system import processors
from flatguard.errors import EnvironmentProblem
from flatguard.execution.executors.executor import MAX_DEATHS, Work
from flatguard.execution.executors.main_guard import MainGuard, main_guard
from flatguard.execution.executors.worker import WorkerInput, attack_in_worker, sendable
from flatguard.execution.progress import Silent
from flatguard.runs.facts import BlockPlan, SampleFailure


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
        threads = work.run.manifest.device.get("threads", 1)
        workers = min(self.workers, len(work.plans))
        if workers * threads > processors() and threads > 1:
            work.progress.log(
                f"{workers} workers with {threads} threads each share {processors()} cores; "
                "--threads 1 may be faster, for one worker and for several"
            )
        with main_guard() as guard:
            self._attack_all(work, {plan.index: plan for plan in work.plans}, guard)

    def _attack_all(self, work: Work, left: dict[int, BlockPlan], guard: MainGuard) -> None:
        deaths = 0
        while left:
            before = len(left)
            try:
                self._attack_in_pool(work, left)
            except BrokenProcessPool as error:
                guard.check()
                deaths = 1 if len(left) < before else deaths + 1
                if deaths >= MAX_DEATHS:
                    raise EnvironmentProblem(
                        f"workers died {MAX_DEATHS} times and finished no block; is the memory "
                        f"enough for {self.workers} of them?"
                    ) from error
                work.progress.log("a worker died; its unfinished block is attacked again")

    def _attack_in_pool(self, work: Work, left: dict[int, BlockPlan]) -> None:
        spawn = multiprocessing.get_context("spawn")
        stop = spawn.Event()
        workers = min(self.workers, len(left))
        with futures.ProcessPoolExecutor(
            workers, spawn, _begin_process, (WorkerInput.of(work), stop)
        ) as pool:
            try:
                with sendable():
                    waiting = {
                        pool.submit(_attack_in_process, plan, work.max_failures): plan
                        for plan in left.values()
                    }
                for future in futures.as_completed(waiting):
                    failures = future.result()
                    plan = left.pop(waiting[future].index)
                    work.finished(plan, failures)
            except BaseException as error:
                if not isinstance(error, Exception):
                    stop.set()
                elif workers > 1 and not isinstance(error, BrokenProcessPool):
                    work.progress.log("waiting for the other workers to finish their blocks")
                # No worker may write to the run after this, because its folder may be removed.
                pool.shutdown(wait=True, cancel_futures=True)
                raise


class _StopListener(Silent):
    """Interrupts the attack once the process that started the workers is interrupted."""

    def __init__(self, stop: Event):
        self._stop = stop

    def called(self, rows: int) -> None:
        if self._stop.is_set():
            raise KeyboardInterrupt


_process: tuple[WorkerInput, _StopListener] | None = None


def _begin_process(given: WorkerInput, stop: Event) -> None:
    global _process
    _process = (given, _StopListener(stop))
    # A terminal sends SIGINT to every process; the workers listen to `stop` instead.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this worker when its parent is killed; otherwise it would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _attack_in_process(plan: BlockPlan, max_failures: int) -> tuple[SampleFailure, ...]:
    assert _process is not None, "the pool's initializer ran"
    given, progress = _process
    return attack_in_worker(given, plan, max_failures, progress)
