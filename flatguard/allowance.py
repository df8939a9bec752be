"""How much a run may spend before it has to end: forward passes and minutes."""

from __future__ import annotations

import time
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from flatguard.errors import BudgetSpent


class Limits(BaseModel):
    """What a run may spend at most; None is no limit.

    Attributes:
        max_forwards: images sent forward by the attack and by the checks, as both are counted
            under `price` and `price of checks`.
        max_minutes: of every process that works at the run, with loading; the time between an
            interruption and `--resume` does not count.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_forwards: Annotated[int, Field(ge=1)] | None = None
    max_minutes: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None


class Spent(BaseModel):
    """What a run has spent, also on what failed, was interrupted or was done again."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    forwards: Annotated[int, Field(ge=0, lt=1 << 53)] = 0
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0


NOTHING = Spent()


class Allowance:
    """What is left of a run's limits.

    Args:
        limits: what may be spent.
        before: what earlier processes spent on the same run.
    """

    def __init__(self, limits: Limits, before: Spent = NOTHING):
        self.limits = limits
        self._forwards, self._before, self._began = before.forwards, before, time.monotonic()

    @property
    def spent(self) -> Spent:
        """By now, with what was spent before."""
        seconds = self._before.seconds + time.monotonic() - self._began
        return Spent(forwards=self._forwards, seconds=seconds)

    def spend(self, forwards: int) -> None:
        """So many images go forward.

        Raises:
            BudgetSpent: this goes beyond a limit; so does everything after it.
        """
        self._forwards += forwards
        most, minutes = self.limits.max_forwards, self.limits.max_minutes
        if most is not None and self._forwards > most:
            raise BudgetSpent(f"the budget of {most:,} forwards (--max-forwards) was spent")
        if minutes is not None and self.spent.seconds > 60.0 * minutes:
            raise BudgetSpent(f"the budget of {minutes:g} minutes (--max-minutes) was spent")


NO_LIMITS = Limits()
