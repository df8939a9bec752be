"""Keeps a few images along the attack on the first samples of a batch, in bounded memory."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

POINTS = 6
"""The most images that are kept for each sample."""


@dataclass(frozen=True)
class Waypoint:
    """The input of one model call for one sample."""

    call: int
    image: Tensor


@dataclass
class _Way:
    seen: int = 0
    stride: int = 1
    kept: list[Waypoint] = field(default_factory=list)


class Waypoints:
    """Keeps every stride-th image of each of the first `samples` rows of a batch.

    When a sample already has `POINTS` images, every other one is dropped and the stride doubles:
    the rest is evenly spaced for attacks of any length.
    """

    def __init__(self, samples: int):
        self._ways = [_Way() for _ in range(samples)]

    def __len__(self) -> int:
        return len(self._ways)

    def add(self, call: int, numbers: list[int], rows: Tensor) -> None:
        """Add a call on these rows, `(m, ...)`, which belong to the samples `numbers` or to none.

        Of several rows of one sample, the first is used.
        """
        for index, way in enumerate(self._ways):
            if index in numbers:
                self._pass(way, call, rows[numbers.index(index)])

    def _pass(self, way: _Way, call: int, image: Tensor) -> None:
        if way.seen % way.stride == 0:
            if len(way.kept) == POINTS:
                way.kept = way.kept[::2]
                way.stride *= 2
            if way.seen % way.stride == 0:
                way.kept.append(Waypoint(call, image.detach().clone()))
        way.seen += 1

    def of(self, index: int) -> list[Waypoint]:
        """The waypoints of the batch's row `index`, in the order of the calls."""
        return self._ways[index].kept
