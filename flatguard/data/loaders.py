"""Torch's DataLoader: its data set and its `collate_fn`, in its order, which must be fixed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import data as torch_data

from flatguard.data.arrays import as_tensor
from flatguard.data.dataset import Dataset
from flatguard.data.samples import pair_of, reading_of
from flatguard.environment.randomness import seeded
from flatguard.errors import DataError

_RANDOM = (
    torch_data.RandomSampler,
    torch_data.SubsetRandomSampler,
    torch_data.WeightedRandomSampler,
)
_PLAIN = (torch_data.SequentialSampler, torch_data.BatchSampler)
_CPU = torch.device("cpu")
_READ_AGAIN = 8


def of_loader(loader: Any, name: str) -> Dataset:
    """The images of a DataLoader in its order; its workers are not used.

    Raises:
        DataError: it shuffles, it has no indices, or its images change.
    """
    if isinstance(loader.dataset, torch_data.IterableDataset):
        raise DataError(
            "data: this DataLoader's data set gives its samples one after the other, so they "
            "cannot be read again; give data=list(loader)"
        )
    order = _fixed_order(loader)
    served = _Loaded(loader, order, name)
    served.check_again()
    left = len(loader.dataset) - len(order)
    if loader.drop_last and left > 0:
        served.notes = (f"the DataLoader leaves out {left} images (drop_last=True)",)
    return served


class _Loaded(Dataset):
    """Samples of a loader's data set, put together by the loader's `collate_fn`."""

    def __init__(self, loader: Any, order: Sequence[Any], name: str):
        super().__init__(name, len(order))
        self._dataset, self._collate, self._order = loader.dataset, loader.collate_fn, order
        classes = getattr(loader.dataset, "classes", None)
        if isinstance(classes, (list, tuple)) and all(isinstance(each, str) for each in classes):
            self.classes = tuple(classes) or None

    def check_again(self) -> None:
        """Refuse a loader that gives other images each time it is read."""
        seen = []
        for seed in (1, 2, 3):
            with seeded(seed, _CPU):
                seen.append(self._read(0, min(_READ_AGAIN, len(self))))
        for images, labels in seen[1:]:
            same = torch.equal(images.nan_to_num(), seen[0][0].nan_to_num())
            if not same or not torch.equal(labels, seen[0][1]):
                raise DataError(
                    f"{self.name}: the DataLoader gives other images each time it is read; leave "
                    "out random transforms, as for testing"
                )

    def _raw(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        with seeded(0, _CPU):  # the caller's generators stay as they are
            return self._read(start, stop)

    def _read(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        where = f"{self.name}: samples {start} to {stop - 1}"
        with reading_of(where):
            held = self._collate([self._dataset[index] for index in self._order[start:stop]])
        images, labels = pair_of(held, where)
        return as_tensor(images, where), as_tensor(labels, where)


def _fixed_order(loader: Any) -> Sequence[Any]:
    # A loader that was given its batch_sampler has no batch size, and its own sampler is not used.
    plain = type(loader.batch_sampler) is torch_data.BatchSampler and loader.batch_size is not None
    if plain and type(loader.sampler) is torch_data.SequentialSampler:
        count = len(loader.dataset)
        return range(count - count % loader.batch_size if loader.drop_last else count)
    for sampler in (loader.sampler, getattr(loader.batch_sampler, "sampler", None)):
        check_sampler(sampler)
    orders = []
    for seed in (1, 2, 3):
        with seeded(seed, _CPU):
            orders.append([index for batch in loader.batch_sampler for index in batch])
    if orders[0] != orders[1] or orders[0] != orders[2]:
        named = loader.batch_sampler if type(loader.sampler) in _PLAIN else loader.sampler
        raise _shuffles(type(named).__name__)
    return orders[0]


def check_sampler(sampler: Any) -> None:
    """Refuse a sampler that draws its order."""
    if isinstance(sampler, _RANDOM):
        raise _shuffles(type(sampler).__name__)


def _shuffles(what: str) -> DataError:
    return DataError(
        f"data: this DataLoader shuffles its samples ({what}), so a run could not be repeated; "
        "give one with shuffle=False, or the data set itself: data=loader.dataset"
    )
