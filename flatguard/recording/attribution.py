"""Finds the clean sample to which a row of a model call belongs, in five steps without guesses.

1. *Declared order.* The adapter declares that its attack keeps the order of its batch, and the
   call has as many rows as that batch, or a multiple of them if the attack is declared to stack
   copies. The batch is the whole one, or the subset with which the adapter reported a run.
2. *Unique match.* Exactly one clean image lies within reach of the row. An image's reach is the
   budget's radius, or half its distance from the nearest other clean image if that is more: up
   to half that distance the triangle inequality excludes any other image. Identical images are
   within each other's reach, so they are never matched.
3. *Forced by order.* Attacks call the model on sorted subsets of the batch. If there are as many
   samples between two matched rows as there are rows, each row has one possible sample; it is
   assigned if that sample is also the nearest one.
4. *Sequence.* An attack is declared to process one image after the other, and to start each with
   the clean image: the row belongs to the last matched image.
5. Otherwise the row is *unassigned*, counted and reported.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from itertools import pairwise

import torch
from torch import Tensor

from flatguard.attacks.monitor import NO_ORDER, Order
from flatguard.geometry.budget import Budget, Norm
from flatguard.geometry.distance import CHUNK_VALUES, Distances
from flatguard.geometry.precision import wide, wide_type

UNASSIGNED = -1
_SLACK = 1e-5


class How(IntEnum):
    """The step that assigned a row; stored with every row."""

    UNASSIGNED = 0
    DECLARED = 1
    UNIQUE = 2
    ORDER = 3
    SEQUENCE = 4


@dataclass(frozen=True)
class Assignment:
    """The samples of the rows of a call, `(m,)` each.

    Attributes:
        sample: the number of the clean image, `UNASSIGNED` if it is not certain.
        how: the step that assigned it, a `How`.
        linf: the distance from that image, float64; NaN if there is none.
        l2: the same in L2.
    """

    sample: Tensor
    how: Tensor
    linf: Tensor
    l2: Tensor


@dataclass(frozen=True)
class _Reach:
    """The reach of each image, `(n,)` each.

    Attributes:
        radius: the image's reach.
        safe: a row that is nearer to the image than this is in no other image's reach.
        has_twin: whether the batch contains an identical image.
    """

    radius: Tensor
    safe: Tensor
    has_twin: Tensor


class Attribution:
    """Assigns rows to the images of one batch.

    Args:
        images: the clean batch, `(n, ...)`.
        budget: the attack's; None if unknown.
        order: the declared order of the rows of the attack's calls.
    """

    def __init__(
        self,
        images: Tensor,
        budget: Budget | None = None,
        order: Order = NO_ORDER,
    ):
        self._images = images
        self._order = order
        self._active: Tensor | None = None
        self._at = UNASSIGNED
        declared = budget.norm if budget is not None else "none"
        self._norm: Norm = "Linf" if declared == "none" else declared
        self._eps = budget.eps if budget is not None and budget.eps is not None else 0.0
        self._last: Tensor | None = None
        self._squares: Tensor | None = None
        self._distances = Distances(images)

    @cached_property
    def _reach(self) -> _Reach:
        """Computed on first use: with a declared order, no call needs it."""
        apart = self._apart(self._images)
        apart.fill_diagonal_(math.inf)
        nearest = apart.amin(dim=1)
        half = nearest / 2.0 * (1.0 - _SLACK) if len(apart) > 1 else apart.diagonal()
        radius = half.clamp_min(self._eps * (1.0 + _SLACK) + _SLACK * (self._eps > 0))
        safe = (apart - radius).amin(dim=1).minimum(radius)
        return _Reach(radius, safe, nearest == 0)

    def begin_run(self, batch: Tensor | None) -> Tensor | None:
        """A run begins that keeps the order of these clean images, if any are given.

        Returns the state for `end_run`. The batch is used only if all its samples are certain.
        """
        before, self._active = self._active, None
        if batch is None or batch.shape[1:] != self._images.shape[1:]:
            return before
        if torch.equal(batch, self._images):
            self._active = torch.arange(len(batch), device=batch.device)
        else:
            guess = self._guess(batch)
            (apart,) = self._distances.to(batch, guess, (self._norm,))
            sample = self._unique(batch, guess, apart)
            certain = bool((sample != UNASSIGNED).all())
            self._active = sample if certain else None
        return before

    def end_run(self, before: Tensor | None) -> None:
        """The run ends; `before` is the result of `begin_run`."""
        self._active = before

    def assign(self, rows: Tensor) -> Assignment:
        """The sample of each row of a call, the step that found it, and the row's distances."""
        if rows.shape[1:] != self._images.shape[1:]:
            sample = torch.full((len(rows),), UNASSIGNED, device=rows.device)
            missing = torch.full_like(sample, torch.nan, dtype=wide_type(rows))
            return Assignment(sample, torch.zeros_like(sample), missing, missing)
        known = self._by_declaration(len(rows))
        if known is not None:
            _, linf, l2 = self._apart_from(rows, known)
            return Assignment(known, torch.full_like(known, How.DECLARED), linf, l2)
        guess = self._guess(rows)
        apart, linf, l2 = self._apart_from(rows, guess)
        sample = self._unique(rows, guess, apart)
        self._last = sample
        if sample is guess and not self._order.sequential:
            return Assignment(sample, torch.full_like(sample, How.UNIQUE), linf, l2)
        how = torch.where(sample != UNASSIGNED, How.UNIQUE, How.UNASSIGNED)
        self._force_by_order(rows, sample, how)
        if self._order.sequential:
            self._continue_sequence(sample, how)
        _, linf, l2 = self._apart_from(rows, sample.clamp_min(0))
        nowhere = sample == UNASSIGNED
        linf, l2 = (size.masked_fill(nowhere, torch.nan) for size in (linf, l2))
        return Assignment(sample, how, linf, l2)

    def _apart_from(self, rows: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Distances of each row from its image in the attack's norm, Linf and L2, `(m,)` each."""
        norms: tuple[Norm, ...] = tuple(dict.fromkeys((self._norm, "Linf", "L2")))
        found = dict(zip(norms, self._distances.to(rows, numbers, norms), strict=True))
        return found[self._norm], wide(found["Linf"]), wide(found["L2"])

    def _by_declaration(self, count: int) -> Tensor | None:
        if self._active is not None:
            return self._active if count == len(self._active) else None
        n = len(self._images)
        whole = torch.arange(n, device=self._images.device)
        if self._order.keeps and count == n:
            return whole
        if self._order.copies == "none" or count % n:
            return None
        if self._order.copies == "consecutive":
            return whole.repeat_interleave(count // n)
        return whole.repeat(count // n)

    def _unique(self, rows: Tensor, guess: Tensor, apart: Tensor) -> Tensor:
        """Compare only the rows that are not safely near their likely image with all images.

        `apart` are the distances from the likely images. Returns `guess` itself if all of it is
        correct, as in nearly every call.
        """
        near = apart < self._reach.safe[guess]
        if bool(near.all()):
            return guess
        sample = torch.where(near, guess, UNASSIGNED)
        left = (~near).nonzero()[:, 0]
        for numbers in left.split(self._rows_at_once()):
            within = self._apart(rows[numbers]) <= self._reach.radius
            only_one = within.sum(dim=1) == 1
            sample[numbers] = torch.where(only_one, within.to(torch.int8).argmax(dim=1), UNASSIGNED)
        return sample

    def _rows_at_once(self) -> int:
        return max(1, CHUNK_VALUES // self._images[0].numel())

    def _guess(self, rows: Tensor) -> Tensor:
        n = len(self._images)
        if len(rows) == n:
            return torch.arange(n, device=rows.device)
        if self._last is not None and len(self._last) == len(rows):
            return self._last.clamp_min(0)
        return self._nearest(rows)

    def _nearest(self, rows: Tensor) -> Tensor:
        """The nearest image by ‖a - b‖² = ‖a‖² + ‖b‖² - 2 a·b; `torch.cdist` would copy a and b."""
        if self._squares is None:
            norms = [torch.linalg.vector_norm(wide(image)) for image in self._images]
            self._squares = torch.stack(norms).square()
        images = self._images.flatten(1).T
        found = []
        for some in rows.split(self._rows_at_once()):
            products = some.flatten(1).to(images.dtype) @ images
            found.append((self._squares - 2.0 * wide(products)).argmin(dim=1))
        return torch.cat(found)

    def _apart(self, rows: Tensor) -> Tensor:
        """Distances of rows from all images in the attack's norm, `(m, n)`."""
        order = {"Linf": math.inf, "L2": 2.0, "L1": 1.0, "L0": 0.0}[self._norm]
        flat = rows.flatten(1).to(self._images.dtype)
        exact = "donot_use_mm_for_euclid_dist"  # the fast form is off by 1e-3 near 0
        apart = torch.cdist(flat, self._images.flatten(1), p=order, compute_mode=exact)
        return apart.to(wide_type(rows))

    def _force_by_order(self, rows: Tensor, sample: Tensor, how: Tensor) -> None:
        """Assign, in place, the rows for which a sorted subset leaves one possible sample."""
        open_rows = (sample == UNASSIGNED).nonzero()[:, 0]
        active = range(len(self._images)) if self._active is None else self._active.tolist()
        place = {number: index for index, number in enumerate(active)}
        places = [place.get(number, UNASSIGNED) for number in sample.tolist()]
        known = [index for index in places if index != UNASSIGNED]
        is_sorted = all(a < b for a, b in pairwise(known))
        if self._order.sequential or not len(open_rows) or len(rows) > len(active) or not is_sorted:
            return
        forced = forced_by_order(places, len(active))
        nearest = self._nearest(rows[open_rows])
        for row, near in zip(open_rows.tolist(), nearest.tolist(), strict=True):
            # Identical images stay unassigned: their order is no evidence.
            if forced[row] == place.get(near) and not self._reach.has_twin[near]:
                sample[row], how[row] = near, How.ORDER

    def _continue_sequence(self, sample: Tensor, how: Tensor) -> None:
        """Assign unassigned rows, in place, to the image that the attack is processing."""
        known = sample[sample != UNASSIGNED]
        if len(known):
            self._at = int(known[-1]) if bool((known == known[0]).all()) else UNASSIGNED
        if self._at != UNASSIGNED:
            left = sample == UNASSIGNED
            sample[left], how[left] = self._at, How.SEQUENCE


def forced_by_order(sample: list[int], n: int) -> list[int]:
    """Fill the gaps of an increasing sequence over 0 .. n - 1 where only one value is possible.

    Example:
        >>> forced_by_order([0, -1, -1, 3, -1], 6)
        [0, 1, 2, 3, -1]
    """
    forced = list(sample)
    places = [(-1, -1), *((i, s) for i, s in enumerate(sample) if s != UNASSIGNED)]
    places.append((len(sample), n))
    for (i, a), (j, b) in pairwise(places):
        if j - i == b - a:
            forced[i + 1 : j] = range(a + 1, b)
    return forced
