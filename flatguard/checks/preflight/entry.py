"""`flatguard.preflight()`: look at a model and its clean images before an attack."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from flatguard.checks.preflight.judged import Preflight
from flatguard.checks.preflight.judged import preflight as judged_preflight
from flatguard.data.values import LARGEST_IMAGE
from flatguard.execution.context import ModelAndData, load_model_and_data
from flatguard.execution.origin import (
    BY_NAME,
    Origin,
    caller_state_kept,
    data_name,
    origin_of,
    torch_threads,
)
from flatguard.request import EvaluationRequest, make_request
from flatguard.targets.target import Target

NO_ATTACK = "torchattacks:PGD"
"""The attack of a request whose attack never runs."""


def preflight(model: str | nn.Module | Target, *, data: Any = None, **options: Any) -> Preflight:
    """What a model does on its clean images: a look at the set-up, without an attack.

    Args:
        model: a name or path as on the command line, a module that takes images in [0, 1],
            or a Target.
        data: as for `flatguard.evaluate`.
        **options: the fields of `EvaluationRequest`, by name: `eps`, `norm`, `n_examples`,
            `batch_size`, `device`, `mean`, `std`, ...

    Returns:
        The findings, the facts that they are judged from, and `exit_code`: 3 where there is no
        robustness to judge.

    Raises:
        FlatguardError: one of its kinds, with one line that says what to do.

    Example:
        >>> found = flatguard.preflight("demo")  # doctest: +SKIP
        >>> [finding.check for finding in found.findings if finding.status != "pass"]
        ... # doctest: +SKIP
        []
    """
    with caller_state_kept(model):
        origin = origin_of(model, data)
        target = origin.target
        named = {
            "model": model if target is None else target.name,
            "dataset": data_name(data),
            "attack": NO_ATTACK,
        }
        request = make_request(**{**named, **options})
        with torch_threads(request.threads or torch.get_num_threads()):
            return judged_preflight(load(request, origin))


def load(request: EvaluationRequest, origin: Origin = BY_NAME) -> ModelAndData:
    """Load a request's model and data; refuse a radius that holds every image.

    Raises:
        UsageError: with the radius that was meant.
    """
    _check_radius(request, LARGEST_IMAGE)
    loaded = load_model_and_data(request, None, origin.target, origin.dataset)
    _check_radius(loaded.request, loaded.dataset.block(0, 1).images[0].numel())
    return loaded


def _check_radius(request: EvaluationRequest, values: int) -> None:
    if request.eps is not None:
        request.model_copy(update={"norm": request.norm or "Linf"}).budget().check_radius(values)
