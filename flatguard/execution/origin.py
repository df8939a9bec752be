"""Models and data that the caller gives as Python objects, and that no request can name."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from flatguard.data.dataset import Dataset
from flatguard.data.given import given_dataset
from flatguard.environment.caller import own_process
from flatguard.environment.torch_state import own_state
from flatguard.errors import UsageError
from flatguard.runs.facts import DATA_FROM_PYTHON, FROM_PYTHON
from flatguard.targets.programs import Program
from flatguard.targets.restored import restored
from flatguard.targets.target import Target, make_target


@dataclass(frozen=True)
class Origin:
    """The model and the data that came from Python; None is loaded by the request's name."""

    target: Target | None = None
    dataset: Dataset | None = None


BY_NAME = Origin()
"""Model and data are loaded by the names in the request."""


def origin_of(model: str | nn.Module | Target | None, data: Any) -> Origin:
    """The model and the data, where they are Python objects and not names.

    Raises:
        UsageError: the model is neither a name, a module nor a Target, or the data are no images.
        DataError: the data have no fixed order, or are malformed.
    """
    return Origin(_target(model), _dataset(data))


def data_name(data: Any) -> str | None:
    """The name of a data set, where the data are given by a name or a path."""
    return os.fspath(data) if isinstance(data, (str, os.PathLike)) else None


def _target(model: str | nn.Module | Target | None) -> Target | None:
    if model is None or isinstance(model, Target):
        return model
    if isinstance(model, torch.jit.ScriptModule):
        model = Program(model).train(model.training)  # a script takes no hooks, its wrapper does
    if isinstance(model, nn.Module):
        return make_target(model, type(model).__name__, FROM_PYTHON)
    if not isinstance(model, str):
        raise UsageError(
            f"model: expected a name, a path, a module or a Target, got {type(model).__name__}"
        )
    return None


@own_state()
def _dataset(data: Any) -> Dataset | None:
    if data is None or data_name(data) is not None:
        return None
    return given_dataset(data, DATA_FROM_PYTHON)


@contextmanager
def caller_state_kept(*given: object) -> Iterator[None]:
    """Compute as in a new process; then restore the caller's settings, generators and models.

    Args:
        *given: modules and Targets are restored; anything else is ignored.
    """
    modules = [each.model if isinstance(each, Target) else each for each in given]
    with own_process(), restored(*modules):
        yield


@contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """Compute with this number of torch threads, because rounding may depend on it."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
