"""Distances between images, and which images are within a budget."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from flatguard.geometry.budget import Budget, Norm
from flatguard.geometry.precision import wide_type

CHUNK_VALUES = 1_000_000


def distance(x: Tensor, reference: Tensor, norm: Norm) -> Tensor:
    """The distance of each sample from its reference; for `none`, Linf.

    Args:
        x: `(n, ...)`.
        reference: the same shape.
        norm: which norm of the flattened difference.

    Returns:
        `(n,)`: L1 and L2 are summed in float64, so that 150,528 values cost no digits.
    """
    return _size((x - reference).abs_().flatten(1), norm)


def _size(difference: Tensor, norm: Norm) -> Tensor:
    """Of each row of magnitudes."""
    size: Tensor
    if norm in ("Linf", "none"):
        size = difference.amax(dim=1)  # vector_norm takes twenty times as long on a CPU
    elif norm == "L0":
        changed = (difference != 0).sum(dim=1).float()
        size = torch.where(difference.isnan().any(dim=1), math.nan, changed)
    else:
        order = 1 if norm == "L1" else 2
        wide = wide_type(difference)
        size = torch.linalg.vector_norm(difference, ord=order, dim=1, dtype=wide)
    return size


def within(images: Tensor, clean: Tensor, budget: Budget) -> Tensor:
    """Which images are admissible: finite, in the box [0, 1], and within the budget."""
    flat = images.flatten(1)
    in_box = ((flat >= 0) & (flat <= 1)).all(dim=1)
    return in_box & budget.contains(distance(images, clean, budget.norm))


class Distances:
    """The distances of rows from their reference images.

    Args:
        references: `(n, ...)`.

    Cost: the differences are computed for `CHUNK_VALUES` values at a time, in memory that is reused
    from call to call: allocating it again costs more than the arithmetic.
    """

    def __init__(self, references: Tensor):
        self._references = references.flatten(1)
        self._memory = references.new_empty(0)

    def to(self, x: Tensor, index: Tensor, norms: tuple[Norm, ...]) -> list[Tensor]:
        """The distance of row i of `x` from `references[index[i]]`, `(m,)` in each norm."""
        if not len(x):
            return [torch.zeros(0, device=x.device) for _ in norms]
        size = max(1, CHUNK_VALUES // max(1, x[0].numel()))
        parts: list[list[Tensor]] = [[] for _ in norms]
        for rows, numbers in zip(x.split(size), index.split(size), strict=True):
            difference = self._difference(rows.flatten(1), numbers)
            for part, norm in zip(parts, norms, strict=True):
                part.append(_size(difference, norm))
        return [torch.cat(part) if len(part) > 1 else part[0] for part in parts]

    def _difference(self, rows: Tensor, numbers: Tensor) -> Tensor:
        if self._memory.numel() < rows.numel():
            self._memory = self._references.new_empty(rows.numel())
        chosen = self._memory[: rows.numel()].view(len(rows), -1)
        torch.index_select(self._references, 0, numbers, out=chosen)
        if rows.dtype != chosen.dtype:
            return (rows - chosen).abs_()
        return torch.sub(rows, chosen, out=chosen).abs_()
