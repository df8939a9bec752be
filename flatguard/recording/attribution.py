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

Which step it takes depends on values of the device, and the host does not wait for them: `launch`
computes what holds if the rows are where they are expected, `finish` is called later and does the
rest. When that is does not matter: a row that is near enough to its expected image is in no other
image's reach, and all other rows are compared with all images.
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
from flatguard.recording.host_copy import HostCopy

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


@dataclass
class _Run:
    """A run of the attack that keeps the order of its clean images.

    Attributes:
        numbers: their numbers, expected until the flag is read; None if they are not certain.
        batch: the images, `(m, ...)`, while the flag is on its way.
        flag: whether the expected numbers are certain; None after it was read.
    """

    numbers: Tensor | None
    batch: Tensor | None
    flag: HostCopy | None

    def is_ready(self) -> bool:
        """Whether its flag has arrived."""
        return self.flag is None or self.flag.has_arrived()


@dataclass(frozen=True)
class _Resolved:
    """The latest run whose numbers are settled, and its images: one call often follows another.

    Attributes:
        batch: the images of the run; held, so that no other tensor takes their place in memory.
        version: of the images at that time.
        run: the run.
    """

    batch: Tensor
    version: int
    run: _Run

    @classmethod
    def of(cls, batch: Tensor, run: _Run) -> _Resolved | None:
        """None for a tensor of inference mode, whose changes are not counted."""
        return None if batch.is_inference() else cls(batch, batch._version, run)

    def is_of(self, batch: Tensor) -> bool:
        """Whether these are the same, unchanged images."""
        return (
            not batch.is_inference()
            and batch.data_ptr() == self.batch.data_ptr()
            and batch.shape == self.batch.shape
            and batch.stride() == self.batch.stride()
            and batch.dtype == self.batch.dtype
            and batch._version == self.version
        )


@dataclass(frozen=True)
class Launched:
    """A call on m rows whose assignment is not certain yet.

    Attributes:
        expected: its assignment, if its rows are where they are expected.
        run: the attack's run at the time of the call.
        assumed: the run's numbers that `expected` assumes.
        near: `(m,)`, which rows are safely near their expected image; None with a known order.
        flag: whether all are; None with a known order.
    """

    expected: Assignment
    run: _Run | None = None
    assumed: Tensor | None = None
    near: Tensor | None = None
    flag: HostCopy | None = None

    def is_ready(self) -> bool:
        """Whether `finish` needs no value that is still on its way."""
        has_run = self.run is None or self.run.is_ready()
        return has_run and (self.flag is None or self.flag.has_arrived())


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
        self._whole = torch.arange(len(images), device=images.device)
        self._run: _Run | None = None
        self._at = torch.full((), UNASSIGNED, device=images.device)
        declared = budget.norm if budget is not None else "none"
        self._norm: Norm = "Linf" if declared == "none" else declared
        self._eps = budget.eps if budget is not None and budget.eps is not None else 0.0
        self._resolved: _Resolved | None = None
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

    def begin_run(self, batch: Tensor | None) -> _Run | None:
        """A run begins that keeps the order of these clean images, if any are given.

        Returns the state for `end_run`. The batch is used only if all its samples are certain.
        """
        before, self._run = self._run, None
        if batch is None or batch.shape[1:] != self._images.shape[1:]:
            return before
        if self._resolved is not None and self._resolved.is_of(batch):
            self._run = self._resolved.run
            return before
        if batch.shape == self._images.shape:
            run = _Run(self._whole, batch, HostCopy.of((batch == self._images).all()))
        else:
            guess = self._guess(batch)
            run = _Run(guess, batch, HostCopy.of(self._certain(batch, guess).all()))
        if run.is_ready():
            self._resolve(run)
            self._resolved = _Resolved.of(batch, run)
        else:
            run.batch = batch.clone()  # the attack may change it
        self._run = run
        return before

    def end_run(self, before: _Run | None) -> None:
        """The run ends; `before` is the result of `begin_run`."""
        self._run = before

    def _resolve(self, run: _Run) -> Tensor | None:
        """The certain numbers of a run's images, or None; waits for its flag."""
        if run.flag is not None and run.numbers is not None and run.batch is not None:
            if not run.flag.read()[0]:
                guess = self._nearest(run.batch)
                sample = self._search(run.batch, guess, self._certain(run.batch, guess))
                run.numbers = sample if bool((sample != UNASSIGNED).all()) else None
            run.batch = run.flag = None
        return run.numbers

    def _certain(self, batch: Tensor, guess: Tensor) -> Tensor:
        """Which clean images of a run are their likely image.

        They are so near that they are in no other one's reach, or equal to it and to no other.
        """
        (apart,) = self._distances.to(batch, guess, (self._norm,))
        reach = self._reach
        return (apart < reach.safe[guess]) | ((apart == 0) & ~reach.has_twin[guess])

    def assign(self, rows: Tensor) -> Assignment:
        """The sample of each row of a call, the step that found it, and the row's distances."""
        return self.finish(self.launch(rows), rows)

    def launch(self, rows: Tensor) -> Launched:
        """Begin to assign the rows of a call, `(m, ...)`, without a wait.

        Only a run whose own flag is late is waited for, where a call is on another number of rows.
        """
        run = self._run
        if run is not None and (run.numbers is None or len(run.numbers) != len(rows)):
            self._resolve(run)
        return self._launch(rows, run)

    def _launch(self, rows: Tensor, run: _Run | None) -> Launched:
        if rows.shape[1:] != self._images.shape[1:]:
            sample = torch.full((len(rows),), UNASSIGNED, device=rows.device)
            missing = torch.full_like(sample, torch.nan, dtype=wide_type(rows))
            return Launched(Assignment(sample, torch.zeros_like(sample), missing, missing))
        assumed = None if run is None else run.numbers
        known = self._by_declaration(len(rows), assumed)
        if known is not None:
            _, linf, l2 = self._apart_from(rows, known)
            declared = Assignment(known, torch.full_like(known, How.DECLARED), linf, l2)
            return Launched(declared, run, assumed)
        guess = self._last = self._guess(rows)
        apart, linf, l2 = self._apart_from(rows, guess)
        near = apart < self._reach.safe[guess]
        expected = Assignment(guess, torch.full_like(guess, How.UNIQUE), linf, l2)
        return Launched(expected, run, assumed, near, HostCopy.of(near.all()))

    def finish(self, launched: Launched, rows: Tensor) -> Assignment:
        """The assignment of a call on these rows; calls are finished in the order of the attack.

        Waits for the call's flags, and where a row is not where it is expected.
        """
        if launched.run is not None and self._resolve(launched.run) is not launched.assumed:
            launched = self._launch(rows, launched.run)
        expected, near, flag = launched.expected, launched.near, launched.flag
        if near is None or flag is None:
            return expected
        if flag.read()[0]:
            if self._order.sequential:
                self._continue_sequence(expected.sample, expected.how)
            return expected
        sample = self._search(rows, expected.sample, near)
        how = expected.how.masked_fill(sample == UNASSIGNED, How.UNASSIGNED)
        if self._order.sequential:
            sample, how = self._continue_sequence(sample, how)
        else:
            self._force_by_order(rows, sample, how, launched.assumed)
        if self._last is expected.sample:
            self._last = sample.clamp_min(0)
        _, linf, l2 = self._apart_from(rows, sample.clamp_min(0))
        nowhere = sample == UNASSIGNED
        linf, l2 = (size.masked_fill(nowhere, torch.nan) for size in (linf, l2))
        return Assignment(sample, how, linf, l2)

    def _apart_from(self, rows: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Distances of each row from its image in the attack's norm, Linf and L2, `(m,)` each."""
        norms: tuple[Norm, ...] = tuple(dict.fromkeys((self._norm, "Linf", "L2")))
        found = dict(zip(norms, self._distances.to(rows, numbers, norms), strict=True))
        return found[self._norm], wide(found["Linf"]), wide(found["L2"])

    def _by_declaration(self, count: int, active: Tensor | None) -> Tensor | None:
        """The images of a call on so many rows, in a run on the `active` ones."""
        if active is not None:
            return active if count == len(active) else None
        n = len(self._images)
        if self._order.keeps and count == n:
            return self._whole
        if self._order.copies == "none" or count % n:
            return None
        if self._order.copies == "consecutive":
            return self._whole.repeat_interleave(count // n)
        return self._whole.repeat(count // n)

    def _search(self, rows: Tensor, guess: Tensor, near: Tensor) -> Tensor:
        """The only image within reach of each row, `(m,)`, or `UNASSIGNED`.

        Only the rows that are not safely near their likely image are compared with all images.
        """
        sample = guess.masked_fill(~near, UNASSIGNED)
        left = (~near).nonzero()[:, 0]
        for numbers in left.split(self._rows_at_once()):
            within = self._apart(rows[numbers]) <= self._reach.radius
            only_one = within.sum(dim=1) == 1
            found = within.to(torch.int8).argmax(dim=1)
            sample[numbers] = found.masked_fill(~only_one, UNASSIGNED)
        return sample

    def _rows_at_once(self) -> int:
        return max(1, CHUNK_VALUES // self._images[0].numel())

    def _guess(self, rows: Tensor) -> Tensor:
        if len(rows) == len(self._images):
            return self._whole
        if self._last is not None and len(self._last) == len(rows):
            return self._last
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

    def _force_by_order(
        self, rows: Tensor, sample: Tensor, how: Tensor, run: Tensor | None
    ) -> None:
        """Assign, in place, the rows for which a sorted subset leaves one possible sample.

        `run` are the images of the attack's run, all if None.
        """
        open_rows = (sample == UNASSIGNED).nonzero()[:, 0]
        active = range(len(self._images)) if run is None else run.tolist()
        place = {number: index for index, number in enumerate(active)}
        places = [place.get(number, UNASSIGNED) for number in sample.tolist()]
        known = [index for index in places if index != UNASSIGNED]
        is_sorted = all(a < b for a, b in pairwise(known))
        if not len(open_rows) or len(rows) > len(active) or not is_sorted:
            return
        forced = forced_by_order(places, len(active))
        nearest = self._nearest(rows[open_rows])
        for row, near in zip(open_rows.tolist(), nearest.tolist(), strict=True):
            # Identical images stay unassigned: their order is no evidence.
            if forced[row] == place.get(near) and not self._reach.has_twin[near]:
                sample[row], how[row] = near, How.ORDER

    def _continue_sequence(self, sample: Tensor, how: Tensor) -> tuple[Tensor, Tensor]:
        """With unassigned rows given to the image that the attack is processing."""
        if not len(sample):
            return sample, how
        is_known, last = sample != UNASSIGNED, sample.amax()
        first = sample.masked_fill(~is_known, len(self._images)).amin()
        only = last.masked_fill(first != last, UNASSIGNED)
        self._at = torch.where(is_known.any(), only, self._at)
        continued = torch.where(is_known, sample, self._at.expand_as(sample))
        has_moved = ~is_known & (continued != UNASSIGNED)
        return continued, how.masked_fill(has_moved, How.SEQUENCE)


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
