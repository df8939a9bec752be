"""What `evaluate()` and `audit()` are given, as what it stands for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast, get_args

from pydantic import ValidationError
from torch import Tensor, nn

from flatguard.errors import UsageError
from flatguard.request import Checks, EvaluationRequest, make_request
from flatguard.runs.facts import Limits
from flatguard.targets.target import Target


def request_of(
    model: str | nn.Module | Target,
    attack: str,
    data: tuple[Tensor, Tensor] | str | None,
    fields: dict[str, Any],
) -> EvaluationRequest:
    """The request of what is asked for; what came from Python stands in it by its name.

    Raises:
        UsageError: a field is unknown or out of range.
    """
    return make_request(
        model=model.name if isinstance(model, Target) else model,
        attack=attack,
        dataset=data if isinstance(data, str) else None,
        **fields,
    )


def limits_of(max_forwards: int | None, max_minutes: float | None) -> Limits:
    """What a run may spend.

    Raises:
        UsageError: not a positive number; names the option.
    """
    try:
        return Limits(max_forwards=max_forwards, max_minutes=max_minutes)
    except ValidationError as error:
        first = error.errors()[0]
        option = str(first["loc"][0]).replace("_", "-")
        raise UsageError(f"--{option}: {first['msg']}, got {first['input']!r}") from error


def level_of(checks: str, tolerance: float) -> Checks:
    """The level that is named, where the tolerance beside it is a share.

    Raises:
        UsageError: one of them is not.
    """
    if not 0 <= tolerance < 1:
        raise UsageError(f"--tolerance: expected a share from 0 to below 1, got {tolerance:g}")
    for level in get_args(Checks):
        if level == checks:
            return cast(Checks, level)
    levels = ", ".join(get_args(Checks))
    raise UsageError(f"--checks: expected one of {levels}, got {checks!r}")


def names_of(surrogates: Sequence[str | Target]) -> list[str]:
    """As the manifest has them."""
    return [s if isinstance(s, str) else s.name for s in surrogates]
