"""Attacks the blocks on a Ray cluster."""

from __future__ import annotations

import os
import re
import socket
from dataclasses import dataclass
from typing import Any

from flatguard.environment.requirements import needed
from flatguard.errors import EnvironmentProblem, one_line
from flatguard.execution.executors.executor import MAX_DEATHS, Work
from flatguard.execution.executors.worker import WorkerInput, attack_in_worker, sendable
from flatguard.runs.facts import SampleFailure

_CONNECT_SECONDS, _CANCEL_SECONDS = 10.0, 60.0


@dataclass(frozen=True)
class Ray:
    """A Ray cluster: one task for each block, on one GPU or on as many CPUs as it has threads.

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
        ray = _import_ray()
        started = not ray.is_initialized()
        if started:
            _connect(ray, self.address)
        try:
            self._attack_on(ray, work)
        finally:
            if started:
                ray.shutdown()

    def _attack_on(self, ray: Any, work: Work) -> None:
        on_gpu = work.context.device.type == "cuda"
        slots = ray.cluster_resources()
        work.progress.log(f"Ray: {slots.get('CPU', 0):.0f} CPUs, {slots.get('GPU', 0):.0f} GPUs")
        task = ray.remote(
            num_cpus=work.run.manifest.device.get("threads", 1),
            num_gpus=1 if on_gpu else 0,
            max_retries=MAX_DEATHS,
        )(attack_in_worker)
        with sendable():
            given = ray.put(WorkerInput.of(work))
        waiting = {task.remote(given, plan, work.max_failures): plan for plan in work.plans}
        try:
            while waiting:
                (done, *_), _ = ray.wait(list(waiting), num_returns=1)
                plan = waiting.pop(done)
                work.finished(plan, _result(ray, done))
        except BaseException:
            for reference in waiting:
                ray.cancel(reference, force=True)
            if waiting:
                # No worker may write to the run after this, because its folder may be removed.
                ray.wait(list(waiting), num_returns=len(waiting), timeout=_CANCEL_SECONDS)
            raise


def _result(ray: Any, reference: Any) -> tuple[SampleFailure, ...]:
    try:
        failures: tuple[SampleFailure, ...] = ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
    except ray.exceptions.RayError as error:
        raise EnvironmentProblem(
            f"Ray lost a worker {MAX_DEATHS + 1} times on the same block: {one_line(error)}"
        ) from error
    return failures


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
