"""Findings: the results of checks."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, field_validator

from flatguard.environment.system import quoted
from flatguard.request import CONSENT
from flatguard.runs.storage import RunStorage

Status = Literal["pass", "warn", "fail", "not-run"]


class Finding(BaseModel):
    """The result of one check.

    Attributes:
        check: its name.
        status: `pass`: no evidence against the number; `warn`: a sign that alone decides
            nothing; `fail`: evidence against the number; `not-run`: nothing was measured.
        summary: one line for a person.
        value: the number that was compared; None if nothing was measured.
        threshold: what it was compared with.
        interval: exact 95% interval of `value`, where it is a share.
        samples: over how many samples it is.
        source: the publication that the idea comes from.
        next: what to do about it; None if nothing.
        data: further numbers, for reports.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    check: str
    status: Status
    summary: str
    value: float | None = None
    threshold: float | None = None
    interval: tuple[float, float] | None = None
    samples: int = 0
    source: str = ""
    next: str | None = None
    data: dict[str, Any] = {}

    @field_validator("value", "data", mode="before")
    @classmethod
    def _measured(cls, value: Any) -> Any:
        """A value that is not finite was not measured: JSON has no NaN."""
        if isinstance(value, float):
            return value if math.isfinite(value) else None
        if isinstance(value, dict):
            return {key: cls._measured(item) for key, item in value.items()}
        return [cls._measured(item) for item in value] if isinstance(value, list) else value


RESUME = "flatguard resume RUN"
_NEEDS_MODEL = re.compile(rf"flatguard audit RUN --checks \w+|{RESUME}")
TRUST = (
    "Allowing code runs what this run's request names: leave that option out for a folder that you "
    "do not trust."
)


def not_run(check: str, source: str, why: str, how: str | None) -> Finding:
    """The finding of a check whose evidence is missing. It never counts as passed.

    Args:
        check: its name.
        source: the publication that the idea comes from.
        why: why it has no evidence.
        how: what gives it some; None where nothing is known to. See `missing_evidence`.
    """
    return Finding(check=check, status="not-run", summary=why, source=source, next=how)


def consenting(step: str, needed: bool) -> str:
    """A step with the consent that it needs where the run's request names code."""
    return _NEEDS_MODEL.sub(rf"\g<0>{CONSENT}", step) if needed else step


def needs_trust(steps: Iterable[str]) -> bool:
    """Whether one of these steps allows code; `TRUST` is shown beside it."""
    return any(CONSENT in step for step in steps)


def advice(step: str, run: RunStorage | Path) -> str:
    """A step as it is typed for this run, with its folder or address in place of RUN."""
    place = quoted(run)
    return step.replace("audit RUN", f"audit {place}").replace("resume RUN", f"resume {place}")
