"""Which clean sample a row of a call belongs to; never a guess.

A row is assigned in one of two ways, and otherwise not at all:

* *identity*: the attack is declared to keep a batch's order, and the call has as many rows
  as the batch;
* *unique match*: exactly one clean image lies within the budget of the row. An attack that
  stays in its budget cannot be assigned wrongly so, and identical images match twice and
  stay unassigned. Where no budget is declared, a clean image's radius is half its Linf
  distance from the nearest other one.
"""

from __future__ import annotations

import torch
from torch import Tensor

from flatguard.geometry.budget import Budget, distance

UNASSIGNED = -1
PROBES = 64
"""Coordinates compared first; they rule out nearly all pairs at 1/50 of a full comparison."""
CHUNK_VALUES = 8_000_000
"""At most this many values are compared at a time: 32 MB in float32."""


class Attribution:
    """Assigns rows to the images of one batch.

    Args:
        images: the clean batch, `(n, ...)`.
        budget: what the attack declares to stay within; None if nothing is declared.
        keeps_order: calls with n rows have the batch's order.
    """

    def __init__(self, images: Tensor, budget: Budget | None = None, keeps_order: bool = False):
        self._images = images
        self._keeps_order = keeps_order
        # A difference in one value bounds every L1, L2 and Linf distance, but no L0 distance.
        bounded = budget is not None and budget.norm in ("Linf", "L2", "L1")
        self._budget = budget if bounded else None
        self._can_match = bounded or budget is None
        flat = images.flatten(1)
        self._coordinates = _spread_coordinates(flat)
        self._probes = flat[:, self._coordinates]
        self._radius = self._radii()

    def assign(self, rows: Tensor) -> Tensor:
        """The sample of each row, `(m,)` int64, `UNASSIGNED` where it is not certain."""
        if rows.shape[1:] != self._images.shape[1:]:
            return torch.full((len(rows),), UNASSIGNED, device=rows.device)
        if self._keeps_order and len(rows) == len(self._images):
            return torch.arange(len(rows), device=rows.device)
        if not self._can_match:
            return torch.full((len(rows),), UNASSIGNED, device=rows.device)
        return self._unique_matches(rows)

    def _radii(self) -> Tensor:
        if self._budget is not None and self._budget.eps is not None:
            return torch.full((len(self._images),), self._budget.eps, device=self._images.device)
        if len(self._images) == 1:
            return torch.full((1,), float("inf"), device=self._images.device)
        # The probes' distance is a lower bound of the true one, so half of it is safe too.
        apart = torch.cdist(self._probes, self._probes, p=float("inf"))
        apart.fill_diagonal_(float("inf"))
        return apart.amin(dim=1) / 2.0 * (1.0 - 1e-4)

    def _unique_matches(self, rows: Tensor) -> Tensor:
        probes = rows.flatten(1)[:, self._coordinates].to(self._probes.dtype)
        reach = self._radius * (1.0 + 1e-4) + 1e-6
        near = torch.cdist(probes, self._probes, p=float("inf")) <= reach
        row, sample = near.nonzero(as_tuple=True)
        inside = self._within(rows, row, sample)
        row, sample = row[inside], sample[inside]
        matches = torch.bincount(row, minlength=len(rows))
        assigned = torch.full((len(rows),), UNASSIGNED, device=rows.device)
        assigned[row] = sample
        assigned[matches != 1] = UNASSIGNED
        return assigned

    def _within(self, rows: Tensor, row: Tensor, sample: Tensor) -> Tensor:
        budget = self._budget or Budget("Linf", None)
        size = max(1, CHUNK_VALUES // self._images[0].numel())
        parts = []
        for r, s in zip(row.split(size), sample.split(size), strict=True):
            apart = distance(rows[r], self._images[s], budget.norm)
            inside = budget.contains(apart) if budget.eps is not None else apart < self._radius[s]
            parts.append(inside)
        return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.bool, device=rows.device)


def _spread_coordinates(flat: Tensor) -> Tensor:
    """Coordinates in which the images differ most, one from each equal stretch."""
    count = min(PROBES, flat.shape[1])
    stretch = flat.shape[1] // count
    spread = flat.amax(dim=0) - flat.amin(dim=0)
    best = spread[: count * stretch].view(count, stretch).argmax(dim=1)
    return best + torch.arange(count, device=flat.device) * stretch
