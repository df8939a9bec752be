"""Calls of the model under preflight: seeded, counted, one batch at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from flatguard.checks.preflight.facts import Difference
from flatguard.environment.randomness import seed_all
from flatguard.errors import memory_errors

_TRAINED = {
    "dropout": 2, "dropout1d": 2, "dropout2d": 2, "dropout3d": 2, "feature_dropout": 2,
    "alpha_dropout": 2, "batch_norm": 5, "native_batch_norm": 5,
}  # fmt: skip
"""Functions of torch that can compute as in training, and the position of that argument."""


@dataclass
class Caller:
    """Calls a model, inside `preserved` generators.

    Attributes:
        model: what is called.
        device: where it is.
        seed: of the random numbers of each call.
        batch: at most so many images go forward together.
        forwards: images that went forward so far.
    """

    model: nn.Module
    device: torch.device
    seed: int
    batch: int
    forwards: int = 0

    def logits(self, images: Tensor, *, draw: int = 0, model: nn.Module | None = None) -> Tensor:
        """The logits `(n, classes)`, without gradient. Each batch has the random numbers `draw`."""
        found = []
        for part in images.split(self.batch):
            self.forwards += len(part)
            seed_all(self.seed + draw, self.device)
            with torch.no_grad(), memory_errors(f"{len(part)} images at once"):
                found.append((model or self.model)(part.to(self.device)).detach())
        return torch.cat(found)


def difference(first: Tensor, second: Tensor) -> Difference:
    """Compare the logits of the same images."""
    one, other = first.double(), second.double()
    size = (one - one.mean(dim=1, keepdim=True)).abs().amax(dim=1).clamp_min(1e-30)
    largest = float(((one - other).abs().amax(dim=1) / size).amax()) if len(one) else 0.0
    flips = int((one.argmax(dim=1) != other.argmax(dim=1)).sum())
    finite = largest if largest < float("inf") else None  # not for NaN either
    return Difference(largest=finite, flips=flips, images=len(one))


class TrainedParts(TorchFunctionMode):
    """Notes which functions of torch compute as in training while it is active."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        keywords = kwargs or {}
        name = getattr(func, "__name__", "")
        place = _TRAINED.get(name)
        if place is not None:
            given = args[place] if len(args) > place else None
            given = keywords.get("training", keywords.get("train", given))
            if given is True:
                self.names.add("batch normalisation" if "batch_norm" in name else "dropout")
        return func(*args, **keywords)


@contextmanager
def watched_input(model: nn.Module) -> Iterator[list[bool]]:
    """Whether each call inside writes into the tensor that the model gets."""
    written: list[bool] = []
    inputs: list[tuple[Tensor, Tensor]] = []

    def before(module: nn.Module, given: tuple[object, ...]) -> None:
        if given and isinstance(given[0], Tensor):
            inputs.append((given[0], given[0].detach().clone()))

    hook = model.register_forward_pre_hook(before)
    try:
        yield written
    finally:
        hook.remove()
        written.extend(not torch.equal(now, then) for now, then in inputs)
