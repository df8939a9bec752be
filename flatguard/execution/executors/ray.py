"""Carries out tasks on a Ray cluster."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from flatguard.environment.requirements import needed
from flatguard.errors import EnvironmentProblem, one_line
from flatguard.execution.compute_budget import Counter, OwnCounter
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
from flatguard.execution.executors.worker import Share, WorkerInput, carry_out, sendable
from flatguard.request import NO_LIMITS

_CONNECT_SECONDS, _CANCEL_SECONDS = 10.0, 60.0


@dataclass(frozen=True)
class Ray:
    """A Ray cluster: each task runs on one GPU or on as many CPUs as it has threads.

    Attributes:
        address: the cluster's address; None takes `RAY_ADDRESS`, or starts a cluster here.
    """

    address: str | None = None

    @property
    def threads(self) -> int:
        """One for each CPU slot."""
        return 1

    def attack(self, work: Work) -> None:
        """Attack the blocks; where a worker or its node dies, Ray gives its block to another."""
        with self.start(Crew.of(work)) as workers:
            attack_by(workers, work)

    @contextmanager
    def start(self, crew: Crew) -> Iterator[Workers]:
        """Join the cluster, or start one here; Ray starts its workers when it needs them."""
        ray = _import_ray()
        started = not ray.is_initialized()
        if started:
            _connect(ray, self.address)
        try:
            slots = ray.cluster_resources()
            crew.progress.log(
                f"Ray: {slots.get('CPU', 0):.0f} CPUs, {slots.get('GPU', 0):.0f} GPUs"
            )
            workers = _RayWorkers(ray, crew)
            with counted_together(crew, workers.counter):
                try:
                    yield workers
                except BaseException:
                    workers.cancel()
                    raise
        finally:
            if started:
                ray.shutdown()


class _Total:
    """The sum of forward passes of all workers; it lives in a process of Ray's."""

    def __init__(self) -> None:
        self._total = 0

    def add(self, forwards: int) -> int:
        self._total += forwards
        return self._total


@dataclass(frozen=True)
class _RayCounter:
    """Adds to the sum of all workers. Its handle is sent with the tasks."""

    total: Any

    def add(self, forwards: int) -> int:
        """Add forward passes; returns the sum. Cost: a message to another process and back."""
        import ray

        found: int = ray.get(self.total.add.remote(forwards))
        return found


class _RayWorkers:
    """Tasks of Ray, as many as there are: Ray has a queue of its own."""

    def __init__(self, ray: Any, crew: Crew):
        self._ray, self._crew = ray, crew
        is_limited = crew.compute_budget.limits != NO_LIMITS
        self.counter: Counter = (
            _RayCounter(ray.remote(num_cpus=0)(_Total).remote()) if is_limited else OwnCounter(0)
        )
        self._share = is_limited
        self._task = ray.remote(
            num_cpus=crew.run.manifest.device.get("threads", 1),
            num_gpus=1 if crew.context.device.type == "cuda" else 0,
            max_retries=MAX_DEATHS,
        )(_on_ray)
        with sendable():
            self._given = ray.put(WorkerInput.of(crew))
        self._waiting: dict[Any, Task] = {}

    @property
    def room(self) -> int:
        """Ray takes any number."""
        return 1

    @property
    def busy(self) -> int:
        """How many tasks Ray has."""
        return len(self._waiting)

    @property
    def leaves_work(self) -> bool:
        """The process that started them may have no slot of the cluster."""
        return False

    def submit(self, task: Task) -> None:
        """Give a task to Ray."""
        seconds = self._crew.compute_budget.seconds
        share = Share(self.counter, seconds) if self._share else None
        with sendable():
            self._waiting[self._task.remote(self._given, task, share)] = task

    def take_back(self) -> None:
        """What Ray was given is Ray's."""

    def next(self) -> Finished:
        """Wait for a task that ends.

        Raises:
            EnvironmentProblem: Ray loses its workers again and again.
        """
        (done, *_), _ = self._ray.wait(list(self._waiting), num_returns=1)
        task = self._waiting.pop(done)
        return Finished(task, _result(self._ray, done))

    def cancel(self) -> None:
        """End what is left. No worker may write to the run after this: it may be removed."""
        for reference in self._waiting:
            self._ray.cancel(reference, force=True)
        if self._waiting:
            waiting = list(self._waiting)
            self._ray.wait(waiting, num_returns=len(waiting), timeout=_CANCEL_SECONDS)


def _on_ray(given: WorkerInput, task: Task, share: Share | None) -> Any:
    return carry_out(given, task, share)


def _result(ray: Any, reference: Any) -> Any:
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
    except ray.exceptions.RayError as error:
        raise EnvironmentProblem(
            f"Ray lost a worker {MAX_DEATHS + 1} times on the same task: {one_line(error)}"
        ) from error


def _import_ray() -> Any:
    with needed("ray", "ray", "--executor ray"):
        import ray
    return ray


def _connect(ray: Any, address: str | None) -> None:
    """Join a cluster, or start one here; Ray itself would try a dead address for minutes."""
    named = address or os.environ.get("RAY_ADDRESS", "")
    try:
        if host := re.fullmatch(r"(?:ray://)?\[?([^\[\]/]+?)\]?:(\d+)", named):
            socket.create_connection((host[1], int(host[2])), timeout=_CONNECT_SECONDS).close()
        ray.init(address=address, log_to_driver=False, logging_level="error")
    except (OSError, OverflowError, RuntimeError, ValueError) as error:
        raise EnvironmentProblem(
            f"no Ray cluster answers at {named or 'this machine'} ({one_line(error)}); start one "
            "with ray start --head, or leave out --address"
        ) from error
