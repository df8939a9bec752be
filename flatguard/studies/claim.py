"""One claim of a paper beside what was measured here."""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, field_validator

Verdict = Literal["agrees", "differs", "refuted", "not-measured"]


class Claim(BaseModel):
    """A statement, the paper's number for it, ours, and the verdict.

    Attributes:
        name: unique within its study.
        claim: what the paper says, in one sentence.
        paper: its number as printed, or its words where it prints none.
        ours: the number that was measured; None if nothing was.
        interval: 95% interval of `ours`; None for a calculation, and for an extreme over samples.
        samples: the number of samples behind `ours`.
        is_share: whether `ours` is a share, to be read in percent.
        rule: when it agrees, decided before anything was measured.
        verdict: `agrees`; `differs`: this model or protocol behaves otherwise; `refuted`: the
            statement is false as printed, and `note` has the counterexample; `not-measured`, with
            the reason in `note`.
        note: what a reader needs to know to interpret the number.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    claim: str
    paper: str
    ours: float | None = None
    interval: tuple[float, float] | None = None
    samples: int = 0
    is_share: bool = False
    rule: str
    verdict: Verdict
    note: str = ""

    @field_validator("ours", mode="before")
    @classmethod
    def _measured(cls, value: Any) -> Any:
        """A number that is not finite counts as not measured: JSON has no NaN."""
        return None if isinstance(value, float) and not math.isfinite(value) else value

    def result(self) -> str:
        """Our number with its interval, for people to read."""
        if self.ours is None:
            return "not measured"
        write = "{:.1%}" if self.is_share else "{:.4g}"
        ours, n = write.format(self.ours), f"n = {self.samples}"
        if self.interval is None:
            return f"{ours} ({n})" if self.samples else ours
        low, high = (write.format(end) for end in self.interval)
        return f"{ours} (95% interval {low} to {high}, {n})"
