"""Attacks the blocks one after the other in this process."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

from flatguard.execution.executors.executor import Crew, Work, attack_unless_committed


class InProcess:
    """One block after the other in this process; other processes may work on the same folder."""

    @property
    def threads(self) -> int:
        """The number that torch has now."""
        return torch.get_num_threads()

    def attack(self, work: Work) -> None:
        """Attack free blocks first; blocks that another process has begun come last, backwards."""
        left = list(work.plans)
        while left:
            free = (plan for plan in left if not work.run.storage.is_begun(plan.index))
            plan = next(free, left[-1])
            left.remove(plan)
            failures = attack_unless_committed(
                work.context, work.run, plan, work.max_failures, work.progress, work.compute_budget
            )
            work.finished(plan, failures)

    def start(self, crew: Crew) -> AbstractContextManager[None]:
        """This process does everything."""
        return nullcontext()
