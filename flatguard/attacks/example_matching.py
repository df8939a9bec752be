"""Which clean image each stored example belongs to: by a number, by the order, or by the content.

An example is within the budget of its image, so the nearest clean image within the budget is its
own. Nearest images are searched among pooled images, and decided by the distance of whole ones.
"""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from flatguard.data.dataset import Dataset, blocks
from flatguard.data.example_file import StoredExamples
from flatguard.errors import DataError
from flatguard.geometry.ball import SEARCHED, project
from flatguard.geometry.budget import Budget
from flatguard.geometry.distance import distance, within

NOBODY = -1
"""The image of an example that belongs to none of those that are evaluated."""

_POOLED, _NEAREST, _ROWS = 16, 4, 256


def digest(image: Tensor) -> bytes:
    """The hash of one clean image on the CPU, `(channels, height, width)` float32."""
    return hashlib.sha256(image.contiguous().numpy().tobytes()).digest()


@dataclass(frozen=True)
class Matching:
    """Where stored examples belong, for `count` images that are evaluated.

    Attributes:
        image: `(m,)`, the number of each example's image, or `NOBODY`.
        inside: `(m,)`, whether it is finite, in [0, 1] and within the budget of its image, up to
            the rounding of the file.
        by: `number`, `order` or `content`: how most of them were matched.
        moved: examples that are not at the place of their image.
        ambiguous: examples within the budget of several images; the nearest counts.
        beyond: examples of an image that lie outside its budget.
        farthest: the largest distance among those; 0 if there are none.
        leaving: examples of an image that leave [0, 1].
        nearest: the smallest distance of an example without image from any image; None if none.
        other_labels: examples whose label in the file is not their image's.
        digests: of the images, in the data's order.
    """

    image: np.ndarray
    inside: np.ndarray
    by: str
    moved: int
    ambiguous: int
    beyond: int
    farthest: float
    leaving: int
    nearest: float | None
    other_labels: int
    digests: tuple[bytes, ...]

    @property
    def unmatched(self) -> int:
        """How many examples belong to no image that is evaluated."""
        return int((self.image == NOBODY).sum())

    @property
    def without(self) -> tuple[int, ...]:
        """The images that have no example."""
        count = len(self.digests)
        return tuple(np.setdiff1d(np.arange(count), self.image).tolist())

    @property
    def several(self) -> int:
        """How many images have more than one example."""
        known = self.image[self.image != NOBODY]
        return int((np.unique(known, return_counts=True)[1] > 1).sum())

    def rows(self) -> dict[bytes, list[int]]:
        """The examples of each clean image, those within the budget first."""
        found: dict[bytes, list[int]] = defaultdict(list)
        for row in np.argsort(~self.inside, kind="stable").tolist():
            if self.image[row] != NOBODY:
                found[self.digests[self.image[row]]].append(row)
        return found


def match(
    stored: StoredExamples,
    dataset: Dataset,
    count: int,
    budget: Budget,
    numbers: Tensor | None = None,
) -> Matching:
    """Find the image of every example among the first `count` of a data set.

    Args:
        stored: the examples.
        dataset: the clean images.
        count: how many of them are evaluated.
        budget: of the attack that made the examples.
        numbers: `(m,)`, the number of each example's image, where it is known.

    Raises:
        DataError: images of another size, numbers that contradict the images, or no example within
            the budget of any of these images while most belong to none.

    Cost: one pass over the images, and for examples that are neither numbered nor in the data's
    order a matrix product of their pooled values with those of all images.
    """
    gallery, budget = _Gallery.of(dataset, count, stored), _with_rounding(budget, stored)
    if numbers is None:
        found = _by_content(stored, gallery, budget)
    else:
        found = _by_number(stored, gallery, budget, numbers)
    if not found.inside.any() and 2 * found.unmatched >= len(stored):
        raise DataError(_nothing_found(stored, gallery, budget, found))
    return found


def moved_back(
    stored: StoredExamples, dataset: Dataset, budget: Budget, found: Matching
) -> tuple[Tensor, int]:
    """The examples, and how many of them the rounding of the file had moved out of the budget.

    Those are moved back to the budget's nearest point, where they are judged.
    """
    if not stored.rounding or budget.eps is None or budget.norm not in SEARCHED:
        return stored.images, 0
    images, moved = stored.images.clone(), 0
    for rows in torch.from_numpy(found.inside.nonzero()[0]).split(_ROWS):
        clean = dataset.chosen(found.image[rows].tolist()).images
        outside = ~within(images[rows], clean, budget)
        back = project(images[rows][outside], clean[outside], budget.eps, budget.norm)
        images[rows[outside]] = back
        moved += len(back)
    return images, moved


def _with_rounding(budget: Budget, stored: StoredExamples) -> Budget:
    """The budget that holds an example after the rounding of its file."""
    values = stored.images[0].numel()
    larger = {"Linf": 1.0, "L2": math.sqrt(values), "L1": float(values)}.get(budget.norm, 0.0)
    if budget.eps is None:
        return budget
    return Budget(budget.norm, budget.eps + stored.rounding * larger)


def _nothing_found(
    stored: StoredExamples, gallery: _Gallery, budget: Budget, found: Matching
) -> str:
    near = "" if found.nearest is None else f"; the nearest lies at {found.nearest:.3g}"
    return (
        f"none of the {len(stored)} examples belongs to one of the {gallery.count} images "
        f"({gallery.dataset.name}), within {budget}{near}: are these the images that they were "
        "made from, with the same preprocessing?"
    )


@dataclass
class _Gallery:
    """The clean images, pooled, with their hashes.

    Attributes:
        dataset: reads the whole images again.
        count: the number of images.
        pooled: `(count, d)`.
        digests: of the images.
        labels: `(count,)`.
        gaps: the distance of a pooled image from the nearest other one, where it was asked for.
    """

    dataset: Dataset
    count: int
    pooled: Tensor
    digests: list[bytes]
    labels: Tensor
    gaps: dict[int, float] = field(default_factory=dict)

    @classmethod
    def of(cls, dataset: Dataset, count: int, stored: StoredExamples) -> _Gallery:
        pooled, digests, labels = [], [], []
        for _, batch in blocks(dataset, count, _ROWS):
            if batch.images.shape[1:] != stored.images.shape[1:]:
                raise DataError(
                    f"the examples are {_sides(stored.images)}, and the images "
                    f"({dataset.name}) are {_sides(batch.images)}: channels x height x width"
                )
            pooled.append(_pool(batch.images))
            digests += [digest(image) for image in batch.images]
            labels.append(batch.labels)
        return cls(dataset, count, torch.cat(pooled), digests, torch.cat(labels))

    def distances(self, images: Tensor, numbers: Tensor, budget: Budget) -> tuple[Tensor, Tensor]:
        """The distance of each image from the clean one of this number, and which are inside."""
        far, inside = [], []
        for rows, chosen in zip(images.split(_ROWS), numbers.split(_ROWS), strict=True):
            clean = self.dataset.chosen(chosen.tolist()).images
            far.append(distance(rows, clean, budget.norm).double())
            inside.append(within(rows, clean, budget))
        if not far:
            return torch.zeros(0, dtype=torch.float64), torch.zeros(0, dtype=torch.bool)
        return torch.cat(far), torch.cat(inside)

    def gap(self, number: int) -> float:
        """The distance from a pooled image to the nearest other one that differs from it."""
        if number not in self.gaps:
            far = (self.pooled - self.pooled[number]).norm(dim=1)
            others = far[far > 0]
            self.gaps[number] = float(others.min()) if len(others) else math.inf
        return self.gaps[number]


def _pool(images: Tensor) -> Tensor:
    """`(n, d)`: each channel as a mean over a grid of at most 16 x 16."""
    sides = [min(side, _POOLED) for side in images.shape[2:]]
    return F.adaptive_avg_pool2d(images, (sides[0], sides[1])).flatten(1)


def _sides(images: Tensor) -> str:
    return " x ".join(str(side) for side in images.shape[1:])


def _by_number(
    stored: StoredExamples, gallery: _Gallery, budget: Budget, numbers: Tensor
) -> Matching:
    size = len(gallery.dataset)
    if len(numbers) != len(stored):
        raise DataError(f"expected an index for each of {len(stored)} examples, got {len(numbers)}")
    bad = (numbers < 0) | (numbers >= size)
    if bool(bad.any()):
        raise DataError(
            f"expected indices from 0 to {size - 1} into {gallery.dataset.name}, got "
            f"{int(numbers[bad][0])}"
        )
    image = torch.where(numbers < gallery.count, numbers, NOBODY)
    far, inside = _judged(stored, gallery, budget, image)
    doubtful = (image != NOBODY) & ~inside & stored.images.flatten(1).isfinite().all(dim=1)
    rows = doubtful.nonzero()[:, 0]
    nearer = _search(stored, gallery, budget, rows)
    wrong = [
        (int(row), number)
        for row, number, close in zip(rows, nearer.image, nearer.inside, strict=True)
        if close and gallery.digests[number] != gallery.digests[int(image[row])]
    ]
    if wrong:
        row, number = wrong[0]
        raise DataError(
            f"the indices contradict the images in {len(wrong)} of {len(stored)} examples: example "
            f"{row} lies within {budget} of image {number}, and not of image {int(image[row])}"
        )
    return _matching(stored, gallery, budget, image, far, inside, by="number")


def _by_content(stored: StoredExamples, gallery: _Gallery, budget: Budget) -> Matching:
    image = torch.where(stored.order < gallery.count, stored.order, NOBODY)
    far, inside = _judged(stored, gallery, budget, image)
    rows = (~inside).nonzero()[:, 0]
    found = _search(stored, gallery, budget, rows)
    at_place = image[rows]
    image[rows] = torch.tensor(found.image, dtype=torch.int64)
    moved = int(((image[rows] != at_place) & (image[rows] != NOBODY)).sum())
    kept = (image[rows] == NOBODY) & (torch.tensor(found.nearest) == at_place)
    image[rows[kept]] = at_place[kept]  # too far from every image, but nearest to that at its place
    found.far[kept] = far[rows[kept]]
    far[rows], inside[rows] = found.far, found.inside
    by = "content" if 2 * moved > int((image != NOBODY).sum()) else "order"
    return _matching(
        stored, gallery, budget, image, far, inside, by=by, moved=moved, ambiguous=found.ambiguous
    )


def _judged(
    stored: StoredExamples, gallery: _Gallery, budget: Budget, image: Tensor
) -> tuple[Tensor, Tensor]:
    """The distance of each example from its image, and whether it is inside; NaN without image."""
    rows = (image != NOBODY).nonzero()[:, 0]
    far = torch.full((len(image),), math.nan, dtype=torch.float64)
    inside = torch.zeros(len(image), dtype=torch.bool)
    far[rows], inside[rows] = gallery.distances(stored.images[rows], image[rows], budget)
    return far, inside


@dataclass
class _Nearest:
    """The images of some examples.

    Attributes:
        image: their numbers; `NOBODY` for an example that belongs to none.
        nearest: the number of the nearest image, pooled; `NOBODY` for one that is not finite.
        far: the distances.
        inside: whether they are within the budget.
        ambiguous: how many are within the budget of several images.
    """

    image: list[int]
    nearest: list[int]
    far: Tensor
    inside: Tensor
    ambiguous: int = 0


def _search(stored: StoredExamples, gallery: _Gallery, budget: Budget, rows: Tensor) -> _Nearest:
    """Search the images of these examples by content.

    An example beyond the budget still belongs to an image where it is nearer to it than half of the
    way to any other image.
    """
    found = _Nearest(
        [NOBODY] * len(rows),
        [NOBODY] * len(rows),
        torch.full((len(rows),), math.nan, dtype=torch.float64),
        torch.zeros(len(rows), dtype=torch.bool),
    )
    for start in range(0, len(rows), _ROWS):
        here = rows[start : start + _ROWS]
        examples = stored.images[here]
        pooled = _pool(examples.nan_to_num().clamp(-1, 2))
        count = min(_NEAREST, gallery.count)
        gaps, near = torch.cdist(pooled, gallery.pooled).topk(count, largest=False)
        far, inside = gallery.distances(
            examples.repeat_interleave(count, 0), near.flatten(), budget
        )
        far, inside = far.view(-1, count), inside.view(-1, count)
        for place in range(len(here)):
            _decide(found, start + place, gallery, near[place], gaps[place], far[place],
                    inside[place])  # fmt: skip
    return found


def _decide(
    found: _Nearest,
    place: int,
    gallery: _Gallery,
    near: Tensor,
    gaps: Tensor,
    far: Tensor,
    inside: Tensor,
) -> None:
    """Write down the image of one example, from its nearest images in order."""
    finite = far.nan_to_num(math.inf)
    candidates = inside.nonzero()[:, 0]
    best = int(candidates[finite[candidates].argmin()]) if len(candidates) else 0
    number = int(near[best])
    found.nearest[place] = int(near[0]) if bool(far.isfinite().all()) else NOBODY
    found.far[place] = finite[best] if len(candidates) else finite.min()
    if len(candidates):
        found.image[place], found.inside[place] = number, True
        different = {gallery.digests[int(near[each])] for each in candidates}
        found.ambiguous += len(different) > 1
    elif not bool(far.isfinite().all()):
        return
    elif float(gaps[0]) < gallery.gap(int(near[0])) / 2:
        found.image[place], found.far[place] = int(near[0]), far[0]


def _matching(
    stored: StoredExamples,
    gallery: _Gallery,
    budget: Budget,
    image: Tensor,
    far: Tensor,
    inside: Tensor,
    *,
    by: str,
    moved: int = 0,
    ambiguous: int = 0,
) -> Matching:
    known = image != NOBODY
    beyond = far[known & far.isfinite() & ~budget.contains(far)]
    flat = stored.images.flatten(1)
    leaving = known & ~((flat >= 0) & (flat <= 1)).all(dim=1)
    elsewhere = far[~known & far.isfinite()]
    other = 0
    if stored.labels is not None:
        other = int((stored.labels[known] != gallery.labels[image[known]]).sum())
    return Matching(
        image=image.numpy(),
        inside=inside.numpy(),
        by=by,
        moved=moved,
        ambiguous=ambiguous,
        beyond=len(beyond),
        farthest=float(beyond.max()) if len(beyond) else 0.0,
        leaving=int(leaving.sum()),
        nearest=float(elsewhere.min()) if len(elsewhere) else None,
        other_labels=other,
        digests=tuple(gallery.digests),
    )
