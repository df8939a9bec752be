"""The other judges of a pair: what each is asked, what it answers, and what the answer costs.

A price is in sample-forwards, counted as flatguard counts its own: one for each image in each call
of the model. Like flatguard, a judge has the audited run for nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STEPS = 20
"""Of the audited PGD; a step is a quarter of the radius."""


@dataclass(frozen=True)
class Audited:
    """What a judge may use.

    Attributes:
        model: the defended model, in eval mode.
        images: `(n, channels, height, width)` in [0, 1].
        labels: `(n,)`.
        eps: the radius in ℓ∞.
        run: flatguard's record of the audited attack; None where no attack could run.
    """

    model: nn.Module
    images: Tensor
    labels: Tensor
    eps: float
    run: Any | None

    def right(self, most: int) -> tuple[Tensor, Tensor]:
        """The first images that the model classifies right, of twice as many; and their labels."""
        images, labels = self.images[: 2 * most], self.labels[: 2 * most]
        with torch.no_grad():
            kept = (self.model(images).argmax(dim=1) == labels).nonzero()[:most, 0]
        return images[kept], labels[kept]


@dataclass(frozen=True)
class Answer:
    """What a judge says of a pair.

    Attributes:
        alarm: whether the number should not be believed.
        named: the signs that were raised.
        values: what was measured.
        note: what limits the answer, or why there is none.
        answered: whether the judge can judge this pair at all.
    """

    alarm: bool
    named: list[str]
    values: dict[str, float] = field(default_factory=dict)
    note: str = ""
    answered: bool = True

    @classmethod
    def none(cls, why: str) -> Answer:
        """No answer, and why."""
        return cls(False, [], note=why, answered=False)


@dataclass(frozen=True)
class Judge:
    """Another judge.

    Attributes:
        name: in tables.
        ask: its answer.
        explains: the mechanisms that each of its signs would be right about; empty where it names
            none.
        source: where its rule is published.
        images: how many it looks at, at most.
    """

    name: str
    ask: Callable[[Audited], Answer]
    explains: Mapping[str, frozenset[str]]
    source: str
    images: int


@dataclass
class Count:
    """Sample-forwards."""

    forwards: int = 0


@contextmanager
def counted(model: nn.Module) -> Iterator[Count]:
    """Counts the images of every call of the model."""
    count = Count()

    def add(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        count.forwards += len(inputs[0])

    handle = model.register_forward_pre_hook(add)
    try:
        yield count
    finally:
        handle.remove()


def losses(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of each image."""
    return F.cross_entropy(model(images), labels, reduction="none")


def gradient(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor | None:
    """Of the cross-entropy in the images; None where there is no graph."""
    at = images.clone().requires_grad_(True)
    try:
        found: Tensor = torch.autograd.grad(losses(model, at, labels).sum(), at)[0]
    except RuntimeError:
        return None
    return found.nan_to_num()


def judges() -> tuple[Judge, ...]:
    """All of them, in the order of the tables."""
    from benchmarks.masking_zoo import art, auto_art, baselines, binarisation, ioaf

    return (baselines.JUDGE, ioaf.JUDGE, binarisation.JUDGE, auto_art.JUDGE, art.JUDGE)


def ask_all(fresh: Callable[[], Audited]) -> dict[str, dict[str, Any]]:
    """The answers by the judges' names, with their prices, as they are stored.

    Args:
        fresh: makes what a judge may use; each has a new model, for a model may remember.
    """
    found = {}
    for judge in judges():
        torch.manual_seed(0)
        audited = fresh()
        with counted(audited.model) as count:
            try:
                answer = judge.ask(audited)
            except Exception as error:  # whatever it raises, the pair is shown
                answer = Answer.none(f"it failed: {type(error).__name__}: {error}".splitlines()[0])
        values = {name: round(float(value), 4) for name, value in answer.values.items()}
        price = {"values": values, "forwards": count.forwards}
        found[judge.name] = asdict(answer) | price
    return found
