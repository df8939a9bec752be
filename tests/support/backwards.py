"""Workers that carry out in this process what was submitted last: another order than the plan's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from flatguard.execution.executors import Crew, Finished, InProcess, Work, Worker, Workers
from flatguard.execution.executors.executor import Task


class _Stack:
    def __init__(self, worker: Worker, room: int, starter_works: bool):
        self.worker, self.most, self.waiting, self.begun = worker, room, list[Task](), 0
        self.starter_works, self.asked, self.taken_back = starter_works, 0, 0

    @property
    def room(self) -> int:
        return self.most - len(self.waiting)

    @property
    def busy(self) -> int:
        return len(self.waiting)

    @property
    def leaves_work(self) -> bool:
        """Two of three times: so a part is gathered here, and one taken back, before others end."""
        self.asked += 1
        return self.starter_works and self.asked % 3 > 0

    def take_back(self) -> Task | None:
        if not self.waiting:
            return None
        self.taken_back += 1
        return self.waiting.pop()

    def submit(self, task: Task) -> None:
        self.waiting.append(task)
        self.begun = max(self.begun, len(self.waiting))

    def next(self) -> Finished:
        task = self.waiting.pop()
        return Finished(task, task.carry_out(self.worker))


@dataclass
class Backwards:
    """So many tasks may wait. Blocks are attacked in order.

    Attributes:
        room: so many.
        starter_works: whether the process that starts them is one of them, if it offers that.
        begun: how many waited at once.
        taken_back: how many it took back.
    """

    room: int = 4
    starter_works: bool = False
    begun: int = 0
    taken_back: int = 0
    threads: int = 1

    def attack(self, work: Work) -> None:
        InProcess().attack(work)

    @contextmanager
    def start(self, crew: Crew) -> Iterator[Workers]:
        worker = Worker(crew.context, crew.run, crew.progress, crew.compute_budget)
        stack = _Stack(worker, self.room, self.starter_works and crew.starter_works)
        yield stack
        self.begun, self.taken_back = stack.begun, stack.taken_back
