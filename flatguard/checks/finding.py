"""Findings: the results of checks."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
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
_NEEDS_MODEL = re.compile(
    rf"flatguard audit RUN --checks (?P<checks>\w+)(?: --surrogate (?P<surrogate>\w+))?|{RESUME}"
)
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


def loading(step: str, names_code: bool, from_python: Sequence[str]) -> str:
    """A step that loads the run's model, with what that takes.

    Args:
        step: in words; it may hold a command.
        names_code: whether the run's request names code, which needs consent.
        from_python: `model`, `data`: what came from Python. No command has it, so the step is a
            call in Python.
    """

    def call(found: re.Match[str]) -> str:
        checks, surrogate = found["checks"], found["surrogate"]
        given = [] if checks is None else [f'checks="{checks}"']
        given += [] if surrogate is None else [f"surrogates=[{surrogate}]"]
        given += [f"{name}={name}" for name in from_python]
        given += ["allow_code=True"] if names_code else []
        return f'flatguard.{"resume" if checks is None else "audit"}("RUN", {", ".join(given)})'

    if from_python:
        return _NEEDS_MODEL.sub(call, step)
    return _NEEDS_MODEL.sub(rf"\g<0>{CONSENT}", step) if names_code else step


def needs_trust(steps: Iterable[str]) -> bool:
    """Whether one of these steps allows code; `TRUST` is shown beside it."""
    return any(CONSENT in step or "allow_code=True" in step for step in steps)


def advice(step: str, run: RunStorage | Path) -> str:
    """A step as it is typed for this run, with its folder or address in place of RUN."""
    place = quoted(run)
    typed = step.replace("audit RUN", f"audit {place}").replace("resume RUN", f"resume {place}")
    return typed.replace('("RUN"', f"({str(run)!r}")
