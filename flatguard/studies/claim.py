"""One claim of a paper beside what was measured here."""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, field_validator

from flatguard.checks.statistics import interval

Verdict = Literal["agrees", "differs", "refuted", "not-measured"]


class Claim(BaseModel):
    """A statement, the paper's number for it, ours, and what follows.

    Attributes:
        name: unique within its study.
        claim: what the paper says, in one sentence.
        paper: its number as printed, or its words where it prints none.
        ours: the number that was measured; None if nothing was.
        interval: 95% interval of `ours`; None for a calculation, and for an extreme over samples.
        samples: over how many samples it is.
        is_share: whether `ours` is a share, to be read in percent.
        rule: when it agrees, decided before anything was measured.
        verdict: `agrees`; `differs`: this model or protocol behaves otherwise; `refuted`: the
            statement is false as printed, and `note` has the counterexample; `not-measured`, with
            the reason in `note`.
        note: what a reader must know to take the number for what it is.
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
        """What is not finite was not measured: JSON knows no NaN."""
        return None if isinstance(value, float) and not math.isfinite(value) else value

    def log(self) -> str:
        """Our number with its interval, as a person reads it."""
        if self.ours is None:
            return "not measured"
        write = "{:.1%}" if self.is_share else "{:.4g}"
        ours, n = write.format(self.ours), f"n = {self.samples}"
        if self.interval is None:
            return f"{ours} ({n})" if self.samples else ours
        low, high = (write.format(end) for end in self.interval)
        return f"{ours} (95% {low} to {high}, {n})"


def agrees_if(holds: bool) -> Verdict:
    """`agrees` or `differs`."""
    return "agrees" if holds else "differs"


def not_measured(name: str, claim: str, paper: str, rule: str, why: str) -> Claim:
    """A claim that could not be put to the test here: it is neither right nor wrong."""
    return Claim(name=name, claim=claim, paper=paper, rule=rule, verdict="not-measured", note=why)


def share(held: int, n: int, **told: Any) -> Claim:
    """A claim whose number is a share, with its exact interval; without samples it has none.

    Args:
        held: of how many samples it is true.
        n: of all these.
        **told: the other fields of `Claim`.
    """
    return _share(held / n if n else None, held, n, told)


def unbroken(broken: int, n: int, **told: Any) -> Claim:
    """A claim that `broken` of n samples break: its number is the share of the others."""
    return _share(1 - broken / n if n else None, n - broken, n, told)


def _share(ours: float | None, held: int, n: int, told: dict[str, Any]) -> Claim:
    bounds = interval(held, n) if n else None
    return Claim(ours=ours, interval=bounds, samples=n, is_share=True, **told)
