"""How much a run may spend before it has to end: forward passes and minutes."""

from __future__ import annotations

import time

from flatguard.errors import BudgetSpent
from flatguard.request import Limits


class ComputeBudget:
    """What is left of a run's limits.

    Args:
        limits: what may be spent.
        spent: forward passes that were made before, by the same run.

    Attributes:
        forwards: passes by now, those of before among them.
    """

    def __init__(self, limits: Limits, spent: int = 0):
        self.limits, self.forwards = limits, spent
        self._began = time.monotonic()

    def spend(self, forwards: int) -> None:
        """So many images go forward.

        Raises:
            BudgetSpent: this goes beyond a limit; so does everything after it.
        """
        self.forwards += forwards
        most, minutes = self.limits.max_forwards, self.limits.max_minutes
        if most is not None and self.forwards > most:
            raise BudgetSpent(f"the budget of {most:,} forwards (--max-forwards) was spent")
        if minutes is not None and time.monotonic() - self._began > 60.0 * minutes:
            raise BudgetSpent(f"the budget of {minutes:g} minutes (--max-minutes) was spent")
