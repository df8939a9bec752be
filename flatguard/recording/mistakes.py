"""Keeps, for each image of a batch, the most wrong example within the budget that a call has seen.

An attack returns one example a sample. On its way it may have passed through a better one.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from flatguard.geometry.budget import Budget
from flatguard.geometry.decision import margin
from flatguard.geometry.distance import within
from flatguard.recording.attribution import UNASSIGNED, Assignment


@dataclass(frozen=True)
class KeptMistakes:
    """Recorded examples, `(n, ...)`, with what the model made of them then.

    Attributes:
        sample: `(n,)` int64, the number of the clean image.
        images: `(n, channels, height, width)`.
        margin: `(n,)` float64, negative: the label's logit minus the largest other one.
    """

    sample: Tensor
    images: Tensor
    margin: Tensor


class Mistakes:
    """The most wrong admissible example of each image so far.

    Nothing here waits for the device: an example that is not kept is written to a row that nobody
    reads.

    Args:
        images: the clean batch, `(n, ...)`.
        labels: `(n,)`.
        budget: what an example must be within, beside the box [0, 1].

    Cost: a copy of the batch, and one of the rows of each call.
    """

    def __init__(self, images: Tensor, labels: Tensor, budget: Budget):
        self._clean, self._labels, self._budget = images, labels, budget
        self._lowest = torch.zeros(len(images) + 1, dtype=torch.float64, device=images.device)
        self._images = torch.zeros_like(torch.cat([images, images[:1]]))

    def add(self, assigned: Assignment, rows: Tensor, logits: Tensor) -> None:
        """Add a call on these rows, `(m, ...)`, with its logits, `(m, k)`.

        Of equally wrong examples of one image, the first is kept.
        """
        if rows.shape[1:] != self._clean.shape[1:] or not len(rows):
            return
        rows = rows.to(self._images.dtype)
        own = assigned.sample.clamp_min(0)
        value = margin(logits, self._labels[own])
        counts = (assigned.sample != UNASSIGNED) & self._is_admissible(assigned, rows, own)
        counts &= logits.isfinite().all(dim=1) & (value < 0)
        trash = len(self._clean)
        row = own.masked_fill(~counts, trash)
        lowest = self._lowest.scatter_reduce(0, row, value, "amin")
        is_better = counts & (value == lowest[row]) & (value < self._lowest[row])
        self._images.index_copy_(0, own.masked_fill(~is_better, trash), rows)
        self._lowest = lowest
        self._lowest[trash] = 0.0

    def _is_admissible(self, assigned: Assignment, rows: Tensor, own: Tensor) -> Tensor:
        if self._budget.norm not in ("Linf", "L2"):
            return within(rows, self._clean[own], self._budget)
        flat = rows.flatten(1)
        apart = assigned.linf if self._budget.norm == "Linf" else assigned.l2
        in_box = (flat.amin(dim=1) >= 0) & (flat.amax(dim=1) <= 1)
        return in_box & self._budget.contains(apart)

    def of(self, rows: Tensor) -> KeptMistakes | None:
        """What is kept for these rows of the batch, `(m,)` bool; None if that is nothing.

        `sample` counts within the batch.
        """
        found = self._lowest[:-1].cpu() < 0
        sample = (found & rows.cpu()).nonzero()[:, 0]
        if not len(sample):
            return None
        index = sample.to(self._images.device)
        return KeptMistakes(sample, self._images[index].cpu(), self._lowest[index].cpu())
