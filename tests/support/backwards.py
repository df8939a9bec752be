"""Workers that carry out in this process what was submitted last: another order than the plan's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from flatguard.execution.executors import Crew, Finished, InProcess, Work, Worker, Workers
from flatguard.execution.executors.executor import Task


class _Stack:
    def __init__(self, worker: Worker, room: int):
        self.worker, self.most, self.waiting, self.begun = worker, room, list[Task](), 0

    @property
    def room(self) -> int:
        return self.most - len(self.waiting)

    @property
    def busy(self) -> int:
        return len(self.waiting)

    def submit(self, task: Task) -> None:
        self.waiting.append(task)
        self.begun = max(self.begun, len(self.waiting))

    def next(self) -> Finished:
        task = self.waiting.pop()
        return Finished(task, task.carry_out(self.worker))


@dataclass
class Backwards:
    """So many tasks may wait; `begun` is how many waited at once. Blocks are attacked in order."""

    room: int = 4
    begun: int = 0
    threads: int = 1

    def attack(self, work: Work) -> None:
        InProcess().attack(work)

    @contextmanager
    def start(self, crew: Crew) -> Iterator[Workers]:
        stack = _Stack(
            Worker(crew.context, crew.run, crew.progress, crew.compute_budget), self.room
        )
        yield stack
        self.begun = stack.begun
