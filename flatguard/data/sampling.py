"""Which samples are evaluated: the first ones, or those of an order that a seed draws.

Folders and many files are sorted by class, so their first samples are of few classes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from flatguard.data.dataset import Dataset

_FEW = 0.6
"""Fewer classes than this share of those that a random choice has are few."""

_SHOWN = 3


def class_note(dataset: Dataset, count: int) -> str | None:
    """A line, if the first `count` samples are of far fewer classes than the data have.

    None where the labels are not known without reading images.
    """
    labels = dataset.labels()
    if labels is None or count >= len(labels):
        return None
    every, sizes = labels.unique(return_counts=True)
    first = labels[:count].unique()
    # Each class is met at least once by a random choice with probability 1 - (1 - share)^count.
    expected = (1 - (1 - sizes.double() / len(labels)) ** count).sum().item()
    if len(every) < 2 or len(first) > _FEW * expected:
        return None
    names = dataset.classes or ()
    shown = [names[i] if 0 <= i < len(names) else str(i) for i in first[:_SHOWN].tolist()]
    more = ", ..." if len(first) > _SHOWN else ""
    return (
        f"the first {count:,} of {len(labels):,} images are of {len(first):,} of "
        f"{len(every):,} classes ({', '.join(shown)}{more}): if {dataset.name} is sorted by class, "
        "--shuffle takes samples of all"
    )


class Shuffled(Dataset):
    """The samples of another data set in an order that a seed draws.

    Args:
        whole: the other data set.
        seed: of the order; the same seed gives the same order on every machine.
    """

    _channels_first = True

    def __init__(self, whole: Dataset, seed: int):
        super().__init__(whole.name, len(whole))
        self.classes, self.notes = whole.classes, whole.notes
        self.label_advice, self.listed = whole.label_advice, whole.listed
        self._whole, self._seed = whole, seed
        generator = torch.Generator().manual_seed(seed)
        self._order = torch.randperm(len(whole), generator=generator)

    def resized(self, size: tuple[int, int]) -> Dataset:
        """The same pictures, each resized to this height and width."""
        return Shuffled(self._whole.resized(size), self._seed)

    def in_grey(self) -> Dataset | None:
        """The same pictures with one channel; None if the images are no pictures."""
        grey = self._whole.in_grey()
        return None if grey is None else Shuffled(grey, self._seed)

    def served_classes(self) -> tuple[str, ...]:
        """The names of the classes that may occur."""
        return self._whole.served_classes()

    def labels(self) -> Tensor | None:
        """The labels of all samples, where they are known without reading images."""
        labels = self._whole.labels()
        return None if labels is None else labels[self._order]

    def _raw(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        parts = [self._whole.block(i, i + 1) for i in self._order[start:stop].tolist()]
        return torch.cat([p.images for p in parts]), torch.cat([p.labels for p in parts])
