"""What `evaluate()` and `audit()` are given, as what it stands for; and a run loaded again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from flatguard.data.datasets import ArrayDataset, Dataset
from flatguard.environment.torch_state import own_state
from flatguard.errors import UsageError
from flatguard.execution import context
from flatguard.execution.block import Bench
from flatguard.request import EvaluationRequest, make_request
from flatguard.runs.store import Run
from flatguard.targets.checkpoint import Program
from flatguard.targets.restored import restored
from flatguard.targets.target import Target, make_target


@contextmanager
def caller_kept(*given: object) -> Iterator[None]:
    """Compute in flatguard's own state; the caller's torch and models are then as before.

    Args:
        *given: what may be a module or a Target; anything else is left out.
    """
    modules = [each.model if isinstance(each, Target) else each for each in given]
    with own_state(), restored(*modules):
        yield


def origin_of(
    model: str | nn.Module | Target | None, data: tuple[Tensor, Tensor] | str | None
) -> context.Origin:
    """What came from Python, ready for use; a name is the request's, and None for it stands here.

    Raises:
        UsageError: the model is neither a name, a module nor a Target, or the data are no pair.
    """
    return context.Origin(_target(model), _dataset(data))


def _target(model: str | nn.Module | Target | None) -> Target | None:
    if model is None or isinstance(model, Target):
        return model
    if isinstance(model, torch.jit.ScriptModule):
        model = Program(model).train(model.training)  # hooks cannot sit on the script itself
    if isinstance(model, nn.Module):
        return make_target(model, type(model).__name__, context.FROM_PYTHON)
    if not isinstance(model, str):
        raise UsageError(
            f"model: expected a name, a path, a module or a Target, got {type(model).__name__}"
        )
    return None


def _dataset(data: tuple[Tensor, Tensor] | str | None) -> Dataset | None:
    if data is None or isinstance(data, str):
        return None
    if not isinstance(data, tuple) or len(data) != 2:
        raise UsageError("data: expected a data set's name or a pair of images and labels")
    images, labels = data
    numbers = labels if hasattr(labels, "shape") else np.asarray(labels)
    return ArrayDataset(images, numbers, context.DATA_FROM_PYTHON)


def request_of(
    model: str | nn.Module | Target,
    attack: str,
    data: tuple[Tensor, Tensor] | str | None,
    options: Mapping[str, Any],
) -> EvaluationRequest:
    """The request of what is asked for; what came from Python stands in it by its name.

    Raises:
        UsageError: a field is unknown or out of range.
    """
    return make_request(
        model=model.name if isinstance(model, Target) else model,
        attack=attack,
        dataset=data if isinstance(data, str) else None,
        **options,
    )


def names_of(surrogates: Sequence[str | Target]) -> list[str]:
    """As the manifest has them."""
    return [s if isinstance(s, str) else s.name for s in surrogates]


def reopened(
    run: Run,
    model: nn.Module | Target | None = None,
    data: tuple[Tensor, Tensor] | None = None,
) -> Bench:
    """A run with all that it was made of, loaded again.

    All of its data is read to see that they are the same.

    Args:
        run: whose manifest says what.
        model: the run's model, where it came from Python.
        data: the run's images and labels, where they came from Python.

    Raises:
        UsageError: its weights or its images are others now, or came from Python and are not given.
    """
    bench = Bench.open(run, origin_of(model, data))
    if context.data_sha256(bench.context) != run.manifest.data.sha256:
        raise UsageError(f"{run.manifest.data.name} serves other images now than for {run.storage}")
    return bench
