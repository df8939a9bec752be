"""The runs that an adapter reports while its attack runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from torch import Tensor, nn

from flatguard.attacks import build_attack
from flatguard.attacks.monitor import Segment
from flatguard.geometry.budget import Budget


class Listing:
    """A monitor that lists the runs, and the batches that they begin with."""

    def __init__(self) -> None:
        self.segments: list[Segment] = []
        self.batches: list[Tensor | None] = []
        self.open = 0

    def attack(self) -> AbstractContextManager[None]:
        return nullcontext()

    @contextmanager
    def segment(self, segment: Segment, batch: Tensor | None) -> Iterator[None]:
        self.segments.append(segment)
        self.batches.append(batch)
        self.open += 1
        yield
        self.open -= 1

    def calls_on(self, batch: Tensor) -> AbstractContextManager[None]:
        return nullcontext()

    def aside(self) -> AbstractContextManager[None]:
        return nullcontext()


def segments_of(
    name: str,
    budget: Budget,
    args: dict[str, Any],
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
) -> list[Segment]:
    listing = Listing()
    build_attack(name, budget, 4, args).perturb(model, images, labels, 0, listing)
    return listing.segments
