"""Models and data that the caller gives as Python objects, and that no request can name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from flatguard.data.arrays import ArrayDataset
from flatguard.data.dataset import Dataset
from flatguard.environment.caller import own_process
from flatguard.errors import UsageError
from flatguard.targets.checkpoint import Program
from flatguard.targets.restored import restored
from flatguard.targets.target import Target, make_target

FROM_PYTHON, DATA_FROM_PYTHON = "a module from Python", "images from Python"
"""The source of a model and the name of a data set that have no name of their own."""


@dataclass(frozen=True)
class Origin:
    """The model and the data that came from Python; None is loaded by the request's name."""

    target: Target | None = None
    dataset: Dataset | None = None


BY_NAME = Origin()
"""Model and data are loaded by the names in the request."""


def origin_of(
    model: str | nn.Module | Target | None, data: tuple[Tensor, Tensor] | str | None
) -> Origin:
    """The model and the data, where they are Python objects and not names.

    Raises:
        UsageError: the model is neither a name, a module nor a Target, or the data are no pair.
    """
    return Origin(_target(model), _dataset(data))


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


def _dataset(data: tuple[Tensor, Tensor] | str | None) -> Dataset | None:
    if data is None or isinstance(data, str):
        return None
    if not isinstance(data, tuple) or len(data) != 2:
        raise UsageError("data: expected a data set's name or a pair of images and labels")
    images, labels = data
    numbers = labels if hasattr(labels, "shape") else np.asarray(labels)
    return ArrayDataset(images, numbers, DATA_FROM_PYTHON)


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
