"""The values of an evaluation's options: how each is read from text or Python, and checked.

Imports no torch, as `flatguard.request` does not.
"""

from __future__ import annotations

import re
from numbers import Real
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, FiniteFloat

from flatguard.environment.engines import parse_engine
from flatguard.errors import did_you_mean
from flatguard.geometry.budget import NORMS, Norm, parse_eps
from flatguard.geometry.named_losses import parse_losses

TRACKERS = ("mlflow", "wandb", "tensorboard")
"""The services of `flatguard.integrations` that a run is logged to."""
AUTO = "auto"
"""The batch size that is to be found."""


def _eps_as_text(eps: Any) -> Any:
    return repr(float(eps)) if isinstance(eps, Real) else eps


def _norm_in_our_case(norm: Any) -> Any:
    same = [known for known in NORMS if isinstance(norm, str) and known.lower() == norm.lower()]
    return same[0] if same else norm


def _is_eps(text: str) -> str:
    parse_eps(text)
    return text.strip()


def _are_losses(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(loss.name for loss in parse_losses(names))


def _are_trackers(names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        if name not in TRACKERS:
            known = f"expected one of {', '.join(TRACKERS)}, got {name!r}"
            raise ValueError(f"{known}{did_you_mean(name, TRACKERS, 1)}")
    return tuple(dict.fromkeys(names))


def _is_batch_size(size: Any) -> Any:
    if isinstance(size, str) and size.strip().lower() == AUTO:
        return AUTO
    try:
        whole = int(size) if isinstance(size, str) else size
    except ValueError:
        whole = 0
    if isinstance(whole, bool) or not isinstance(whole, int) or whole < 1:
        raise ValueError(f"expected a number of samples from 1 on, or {AUTO}, got {size!r}")
    return whole


def _one_or_more(names: Any) -> Any:
    return (names,) if isinstance(names, str) else names


def _channels(value: Any) -> Any:
    """`.485,.456,.406` as three numbers."""
    if not isinstance(value, str):
        return value
    try:
        return tuple(float(part) for part in value.split(","))
    except ValueError:
        raise ValueError(f"expected numbers such as .485,.456,.406, got {value!r}") from None


def _size_as_text(size: Any) -> Any:
    if isinstance(size, (list, tuple)):
        return "x".join(str(side) for side in size)
    return str(size) if isinstance(size, int) and not isinstance(size, bool) else size


def _is_size(text: str) -> str:
    sides = text.lower().replace("×", "x").replace(" ", "").split("x")
    if len(sides) > 2 or not all(re.fullmatch(r"[1-9][0-9]{0,4}", side) for side in sides):
        raise ValueError(f"expected 224, or 224x256 as height x width, got {text!r}")
    return f"{sides[0]}x{sides[-1]}"


def _position_as_text(output: Any) -> Any:
    return str(output) if isinstance(output, int) and not isinstance(output, bool) else output


OutputText = Annotated[str, BeforeValidator(_position_as_text)]
SizeText = Annotated[str, BeforeValidator(_size_as_text), AfterValidator(_is_size)]
EpsText = Annotated[str, BeforeValidator(_eps_as_text), AfterValidator(_is_eps)]
NormName = Annotated[Norm, BeforeValidator(_norm_in_our_case)]
AtLeastOne = Annotated[int, Field(ge=1)]
BatchSize = Annotated[Literal["auto"] | AtLeastOne, BeforeValidator(_is_batch_size)]
EngineNames = Annotated[
    tuple[str, ...], BeforeValidator(_one_or_more), AfterValidator(parse_engine)
]
LossNames = Annotated[tuple[str, ...], AfterValidator(_are_losses)]
TrackerNames = Annotated[
    tuple[str, ...], BeforeValidator(_one_or_more), AfterValidator(_are_trackers)
]
Channels = Annotated[tuple[FiniteFloat, ...], BeforeValidator(_channels)]
Share = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
