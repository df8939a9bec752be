"""Executors attack blocks and gather evidence: in this process, in several processes, or on Ray.

A task is a block to attack, or a part of a check's evidence to gather; any worker can carry it out,
in any order. The worker that attacks a block also commits it, whole or not at all. A worker may
therefore die at any moment: another worker does what it did not finish. Every executor writes the
same bytes, because each worker computes with the number of threads that the manifest names.
"""

from flatguard.errors import UsageError
from flatguard.execution.executors.executor import Crew, Executor, Finished, Work, Worker, Workers
from flatguard.execution.executors.in_process import InProcess
from flatguard.execution.executors.processes import Processes
from flatguard.execution.executors.ray import Ray

__all__ = [
    "EXECUTORS", "Crew", "Executor", "Finished", "InProcess", "Processes", "Ray", "Work", "Worker",
    "Workers", "choose",
]  # fmt: skip

EXECUTORS = ("processes", "ray")
"""The names that `--executor` takes."""


def choose(name: str, workers: int | None, address: str | None) -> Executor:
    """The executor that the command line names.

    Raises:
        UsageError: the name is unknown, or an option belongs to another executor.
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
