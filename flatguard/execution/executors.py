"""Who attacks the blocks of a run: this process, several on this machine, or a Ray cluster.

Every block is committed by the worker that attacked it, whole or not at all, so a worker may die
at any moment: what it had not committed is done again by another. The blocks are the same bytes
from every executor, as long as each worker computes with the thread count of the manifest.
"""

from __future__ import annotations

import concurrent.futures as futures
import multiprocessing
import os
import pickle
import re
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any, Protocol

import torch

from flatguard.environment.requirements import needed
from flatguard.environment.system import processors
from flatguard.environment.torch_state import own_state
from flatguard.errors import EnvironmentProblem, UsageError, one_line
from flatguard.execution.block import Bench, attack_block
from flatguard.execution.compute_budget import ComputeBudget
from flatguard.execution.context import Origin
from flatguard.execution.progress import ProgressReporter, Silent
from flatguard.request import NO_LIMITS
from flatguard.runs.facts import BlockPlan, SampleFailure
from flatguard.runs.store import Run, load_run

ANSWER_SECONDS, CANCEL_SECONDS = 10.0, 60.0
DEATHS = 3
"""A run ends when so many workers died one after the other and no block was finished."""

Finished = Callable[[BlockPlan, Sequence[SampleFailure]], None]


@dataclass(frozen=True)
class Work:
    """What an executor is to do, and whom it tells.

    Attributes:
        bench: the job and its run.
        plans: the blocks that are to be attacked and committed.
        max_failures: so many samples of a block may fail.
        finished: is called after each block, and may raise.
        progress: receives progress updates.
        compute_budget: what may be spent, where this process is the only one.
    """

    bench: Bench
    plans: Sequence[BlockPlan]
    max_failures: int
    finished: Finished
    progress: ProgressReporter
    compute_budget: ComputeBudget


class Executor(Protocol):
    """Attacks the blocks of a run."""

    @property
    def threads(self) -> int:
        """How many a worker computes with where nobody asks for a number."""

    def attack(self, work: Work) -> None:
        """Attack and commit the blocks, in any order."""


class InProcess:
    """One block after the other, here; another process may be at the same folder."""

    @property
    def threads(self) -> int:
        """As torch has it."""
        return torch.get_num_threads()

    def attack(self, work: Work) -> None:
        """Blocks that nobody is at come first; those that somebody is at, last and backwards."""
        left = list(work.plans)
        while left:
            free = (p for p in left if not work.bench.run.storage.is_begun(p.index))
            plan = next(free, left[-1])
            left.remove(plan)
            done = _unless_committed(
                work.bench, plan, work.max_failures, work.progress, work.compute_budget
            )
            work.finished(plan, done)


def _unless_committed(
    bench: Bench,
    plan: BlockPlan,
    max_failures: int,
    progress: ProgressReporter,
    compute_budget: ComputeBudget,
) -> tuple[SampleFailure, ...]:
    if bench.run.storage.fetch_block(plan.index):
        return Run(bench.run.storage, bench.run.manifest).block(plan).failures
    return attack_block(bench, plan, max_failures, progress, compute_budget)


@dataclass(frozen=True)
class WorkerInput:
    """All that a worker needs to load a run.

    Attributes:
        folder: the run's, or its address.
        identity: the run's; another may lie in the same folder later.
        origin: the model and data that came from Python, and have no name to load them by.
        here: the folder that relative names start from.
    """

    folder: str
    identity: str
    origin: Origin
    here: str

    @classmethod
    def of(cls, bench: Bench) -> WorkerInput:
        """The parcel of a run."""
        run = bench.run
        return cls(str(run.storage), run.manifest.identity, bench.context.origin, str(Path.cwd()))


@own_state()
def attack_parcel(
    parcel: WorkerInput,
    plan: BlockPlan,
    max_failures: int,
    progress: ProgressReporter | None = None,
) -> tuple[SampleFailure, ...]:
    """Load a run, which this process does once, and attack one of its blocks."""
    global _opened
    wanted = (parcel.folder, parcel.identity)
    if _opened is None or (str(_opened.run.storage), _opened.run.manifest.identity) != wanted:
        if Path(parcel.here).is_dir():
            os.chdir(parcel.here)
        run = load_run(parcel.folder, blocks=False)
        torch.set_num_threads(run.manifest.device.get("threads", torch.get_num_threads()))
        _opened = Bench.open(run, parcel.origin)
    spent = ComputeBudget(NO_LIMITS)
    return _unless_committed(_opened, plan, max_failures, progress or Silent(), spent)


_opened: Bench | None = None


@dataclass(frozen=True)
class Processes:
    """Several processes on this machine."""

    workers: int

    @property
    def threads(self) -> int:
        """An equal share of the cores for each worker."""
        return max(1, processors() // self.workers)

    def attack(self, work: Work) -> None:
        """Where a worker dies, new ones take up what is left."""
        left, deaths = {plan.index: plan for plan in work.plans}, 0
        while left:
            before = len(left)
            try:
                self._attack_in_pool(work, left)
            except BrokenProcessPool as error:
                deaths = 1 if len(left) < before else deaths + 1
                if deaths >= DEATHS:
                    raise EnvironmentProblem(
                        f"workers died {DEATHS} times and finished no block; is the memory "
                        f"enough for {self.workers} of them?"
                    ) from error
                work.progress.log("a worker died; what it had not finished is attacked again")

    def _attack_in_pool(self, work: Work, left: dict[int, BlockPlan]) -> None:
        spawn = multiprocessing.get_context("spawn")
        stop = spawn.Event()
        workers = min(self.workers, len(left))
        with futures.ProcessPoolExecutor(
            workers, spawn, _begin_worker, (WorkerInput.of(work.bench), stop)
        ) as pool:
            try:
                with _sendable():
                    waiting = {
                        pool.submit(_attack_in_worker, plan, work.max_failures): plan
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
                    work.progress.log("waiting for the blocks that other workers are at")
                # Nobody may write to the run when this is over: its folder may be dropped.
                pool.shutdown(wait=True, cancel_futures=True)
                raise


@contextmanager
def _sendable() -> Iterator[None]:
    try:
        yield
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise UsageError(
            f"this model or data cannot be sent to other processes ({one_line(error)}); give it by "
            "name or path, or attack in this process"
        ) from error


class _Listening(Silent):
    """Ends the attack where the process that watches over the workers was interrupted."""

    def __init__(self, stop: Event):
        self._stop = stop

    def called(self, rows: int) -> None:
        if self._stop.is_set():
            raise KeyboardInterrupt


_worker: tuple[WorkerInput, _Listening] | None = None


def _begin_worker(parcel: WorkerInput, stop: Event) -> None:
    global _worker
    _worker = (parcel, _Listening(stop))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all; `stop` is for us
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A pool's worker would wait for ever for work from a parent that was killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _attack_in_worker(plan: BlockPlan, max_failures: int) -> tuple[SampleFailure, ...]:
    assert _worker is not None, "the pool's initializer ran"
    parcel, progress = _worker
    return attack_parcel(parcel, plan, max_failures, progress)


@dataclass(frozen=True)
class Ray:
    """A Ray cluster: a task for each block, on one GPU or on as many CPUs as threads.

    Attributes:
        address: of the cluster; None takes the one that `RAY_ADDRESS` names, or starts one here.
    """

    address: str | None = None

    @property
    def threads(self) -> int:
        """One a CPU slot."""
        return 1

    def attack(self, work: Work) -> None:
        """Where a worker or its node dies, Ray gives its block to another."""
        ray = _ray()
        started = not ray.is_initialized()
        if started:
            _connect(ray, self.address)
        try:
            self._attack_on(ray, work)
        finally:
            if started:
                ray.shutdown()

    def _attack_on(self, ray: Any, work: Work) -> None:
        bench = work.bench
        on_gpu = bench.context.device.type == "cuda"
        slots = ray.cluster_resources()
        work.progress.log(f"Ray: {slots.get('CPU', 0):.0f} CPUs, {slots.get('GPU', 0):.0f} GPUs")
        task = ray.remote(
            num_cpus=bench.run.manifest.device.get("threads", 1),
            num_gpus=1 if on_gpu else 0,
            max_retries=DEATHS,
        )(attack_parcel)
        with _sendable():
            parcel = ray.put(WorkerInput.of(bench))
        waiting = {task.remote(parcel, plan, work.max_failures): plan for plan in work.plans}
        try:
            while waiting:
                (done, *_), _ = ray.wait(list(waiting), num_returns=1)
                plan = waiting.pop(done)
                work.finished(plan, self._result(ray, done))
        except BaseException:
            for reference in waiting:
                ray.cancel(reference, force=True)
            if waiting:  # as above: nobody may write to the run when this is over
                ray.wait(list(waiting), num_returns=len(waiting), timeout=CANCEL_SECONDS)
            raise

    @staticmethod
    def _result(ray: Any, reference: Any) -> tuple[SampleFailure, ...]:
        try:
            failures: tuple[SampleFailure, ...] = ray.get(reference)
        except ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except ray.exceptions.RayError as error:
            raise EnvironmentProblem(
                f"Ray lost a worker {DEATHS + 1} times on the same block: {one_line(error)}"
            ) from error
        return failures


def _ray() -> Any:
    with needed("ray", "ray", "--executor ray"):
        import ray
    return ray


def _connect(ray: Any, address: str | None) -> None:
    """Join a cluster, or start one here; Ray itself would try a dead address for minutes."""
    named = address or os.environ.get("RAY_ADDRESS", "")
    try:
        if place := re.fullmatch(r"(?:ray://)?\[?([^\[\]/]+?)\]?:(\d+)", named):
            socket.create_connection((place[1], int(place[2])), timeout=ANSWER_SECONDS).close()
        ray.init(address=address, log_to_driver=False, logging_level="error")
    except (OSError, OverflowError, RuntimeError, ValueError) as error:
        raise EnvironmentProblem(
            f"no Ray cluster answers at {named or 'this machine'} ({one_line(error)}); start one "
            "with ray start --head, or leave out --address"
        ) from error


def choose(name: str, workers: int | None, address: str | None) -> Executor:
    """The executor that the command line names.

    Raises:
        UsageError: there is none, or an option is another one's.
    """
    if name not in EXECUTORS:
        raise UsageError(f"--executor: expected one of {', '.join(EXECUTORS)}, got {name!r}")
    if name == "ray":
        if workers is not None:
            raise UsageError("--workers is for processes; Ray fills the slots of its cluster")
        return Ray(address)
    if address is not None:
        raise UsageError("--address is for --executor ray")
    if workers is not None and workers < 1:
        raise UsageError(f"--workers: expected a number from 1 on, got {workers}")
    return InProcess() if workers in (None, 1) else Processes(workers)


EXECUTORS = ("processes", "ray")


@contextmanager
def computing_with(threads: int) -> Iterator[None]:
    """So many threads for torch; another number of them may round otherwise."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
