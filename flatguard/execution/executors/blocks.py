"""Attacks blocks by workers, in an order in which a compute budget ends as in one process.

Where forward passes are limited, a block is begun beside others only if all of them are expected to
fit what is left. A block that may not fit is attacked alone. So the blocks that a budget pays for
are finished, and at most one is begun in vain where the expected costs hold. The limit itself holds
in any case: all workers count by one counter.
"""

from __future__ import annotations

from collections import deque

from flatguard.execution.compute_budget import record_spent
from flatguard.execution.executors.executor import AttackBlock, AttackedBlock, Work, Workers
from flatguard.runs.facts import BlockPlan

_MORE = 1.25
"""An attack may make more calls than it announces, by about this factor."""


def attack_by(workers: Workers, work: Work) -> None:
    """Attack and commit the blocks of a run.

    Raises:
        BudgetSpent, ModelError, AttackError: the first error of a block.
    """
    left, cost = deque(work.plans), _Cost(work)
    while left or workers.busy:
        while left and workers.room and (not workers.busy or cost.fits(left[0])):
            cost.begin(left[0])
            workers.submit(AttackBlock(left.popleft(), work.max_failures))
        done: AttackedBlock = workers.next().result
        cost.end(done)
        record_spent(work.run, work.compute_budget)
        work.finished(done.plan, done.failures)


class _Cost:
    """What blocks cost: by the attack's own words before they end, and as counted afterwards."""

    def __init__(self, work: Work):
        self._most = work.compute_budget.limits.max_forwards
        self._settled: float = work.compute_budget.forwards
        self._begun: dict[int, float] = {}
        calls = work.context.attack.expected_calls()
        self._each = None if calls is None else _MORE * calls

    def fits(self, plan: BlockPlan) -> bool:
        """Whether a block fits the budget beside what has begun; unknown costs do not."""
        if self._most is None:
            return True
        if self._each is None:
            return False
        begun = sum(self._begun.values())
        return self._settled + begun + self._each * _size(plan) <= self._most

    def begin(self, plan: BlockPlan) -> None:
        """A block is attacked from now on."""
        self._begun[plan.index] = (self._each or 0.0) * _size(plan)

    def end(self, done: AttackedBlock) -> None:
        """A block is attacked; others may cost as much."""
        del self._begun[done.plan.index]
        self._settled += done.forwards
        self._each = max(self._each or 0.0, done.forwards / _size(done.plan))


def _size(plan: BlockPlan) -> int:
    return plan.stop - plan.start
