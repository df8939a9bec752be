"""Images and labels that Python code gives: arrays, torch data sets and loaders, Hugging Face's.

A source is known by what it can do, not by its package: Hugging Face's `datasets` is no dependency.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils import data as torch_data

from flatguard.data.arrays import ArrayDataset
from flatguard.data.dataset import Dataset
from flatguard.data.loaders import check_sampler, of_loader
from flatguard.data.samples import (
    Batches,
    Samples,
    is_example,
    pair_of,
    read_again,
    reading_of,
)
from flatguard.errors import DataError, UsageError

_Streamed = torch_data.IterableDataset
_EXPECTED = (
    "data: expected a data set's name or path, a pair of images and labels, a torch Dataset or "
    "DataLoader, a list of batches, or a Hugging Face data set"
)


def given_dataset(data: Any, name: str) -> Dataset:
    """The images and labels of a Python object, in an order that is fixed.

    Args:
        data: a pair `(images, labels)` of arrays, tensors or lists; a dict with both; a torch
            `Dataset` or `DataLoader`; a list of batches or of samples; a Hugging Face data set.
        name: of the data set, in messages and in the manifest.

    Raises:
        DataError: the data are not read in a fixed order, change from one reading to the next, or
            are malformed.
        UsageError: an object of another kind.
    """
    if isinstance(data, Dataset):
        return data
    if isinstance(data, torch_data.DataLoader):
        if data.batch_sampler is None and not isinstance(data.dataset, _Streamed):
            check_sampler(data.sampler)
            return _of_sequence(list(data), name)
        return of_loader(data, name)
    if isinstance(data, _Streamed):
        raise _not_indexed(type(data).__name__)
    if isinstance(data, torch_data.Dataset):
        return _of_indexed(data, name)
    if isinstance(data, Mapping):
        return _of_mapping(data, name)
    if hasattr(data, "features") and hasattr(data, "column_names"):
        return _of_hugging_face(data, name)
    if isinstance(data, (tuple, list)):
        return _of_sequence(data, name)
    if isinstance(data, Tensor | np.ndarray):
        raise UsageError("data: expected images and labels, got one array; give (images, labels)")
    if _is_frame(data):
        raise UsageError(f"{_EXPECTED}; got a table; give its columns as (images, labels)")
    if hasattr(data, "__len__") and hasattr(data, "__getitem__"):
        return _of_indexed(data, name)
    if isinstance(data, Iterable):
        raise _not_indexed(type(data).__name__)
    raise UsageError(f"{_EXPECTED}; got {type(data).__name__}")


def _not_indexed(kind: str) -> DataError:
    return DataError(
        f"data: {kind} gives its samples one after the other, so they cannot be read again; give "
        "a list of its batches or samples: data=list(...)"
    )


def _of_sequence(data: Sequence[Any], name: str) -> Dataset:
    if not len(data):
        raise DataError(f"{name} holds no images")
    if is_example(data[0]):
        images, labels = pair_of(data[0], f"{name}: element 0")
        is_batch = np.ndim(labels) >= 1 and np.ndim(images) >= 3 and len(images) == len(labels)
        return Batches(data, name) if is_batch else Samples(data.__getitem__, len(data), name)
    if len(data) == 2:
        return _of_pair(data[0], data[1], name)
    if isinstance(data, tuple):
        raise UsageError(f"{_EXPECTED}; got {len(data)} objects")
    raise UsageError(f"{_EXPECTED}; got a list of {type(data[0]).__name__}")


def _of_pair(images: Any, labels: Any, name: str) -> Dataset:
    if hasattr(images, "shape") and not isinstance(labels, (list, tuple)):
        return ArrayDataset(images, labels if hasattr(labels, "shape") else list(labels), name)
    for what, column in (("images", images), ("labels", labels)):
        if not hasattr(column, "__len__") or not hasattr(column, "__getitem__"):
            raise UsageError(f"{_EXPECTED}; got {type(column).__name__} for {what}")
    if len(images) != len(labels):
        raise DataError(f"{name}: {len(images)} images but {len(labels)} labels")
    if hasattr(images, "shape"):
        return ArrayDataset(images, _stacked(labels, name), name)
    return Samples(_Columns(images, labels).__getitem__, len(images), name)


@dataclass(frozen=True)
class _Columns:
    """Images and labels as samples; a class, because workers receive it."""

    images: Any
    labels: Any

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        return self.images[index], self.labels[index]


def _stacked(labels: Sequence[Any], name: str) -> np.ndarray:
    try:
        return np.asarray([np.asarray(label) for label in labels])
    except ValueError as error:
        raise DataError(f"{name}: expected one label an image, got labels of {error}") from error


def _of_mapping(data: Mapping[Any, Any], name: str) -> Dataset:
    splits = [str(key) for key, value in data.items() if hasattr(value, "column_names")]
    if splits:
        raise UsageError(f"data: expected one split, got {', '.join(splits)}; give data[NAME]")
    images, labels = pair_of(data, name)
    return _of_pair(images, labels, name)


def _of_indexed(data: Any, name: str) -> Samples:
    with reading_of(f"{name}: the number of samples"):
        length = len(data)
    served = Samples(data.__getitem__, length, name)
    served.classes, served.all_labels = _classes_of(data), _labels_of(data)
    read_again(served)
    return served


def _of_hugging_face(data: Any, name: str) -> Dataset:
    if not hasattr(data, "__len__") or not hasattr(data, "__getitem__"):
        raise _not_indexed(type(data).__name__)
    features = data.features or {}
    images = [key for key, feature in features.items() if type(feature).__name__ == "Image"]
    labels = [key for key, feature in features.items() if getattr(feature, "names", None)]
    if len(labels) != 1:
        return _of_indexed(data, name)
    served = _of_indexed(_Rows(data, images[0], labels[0]) if len(images) == 1 else data, name)
    served.classes = tuple(str(each) for each in features[labels[0]].names)
    with contextlib.suppress(Exception):  # the column alone, without its pictures
        served.all_labels = list(data.with_format(None)[labels[0]])
    return served


@dataclass(frozen=True)
class _Rows:
    """Rows of Hugging Face, whose types say which columns are the image and the label."""

    data: Any
    image: str
    label: str

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> Any:
        row = self.data[index]
        known = isinstance(row, Mapping) and self.image in row and self.label in row
        return (row[self.image], row[self.label]) if known else row  # a transform renamed them


def _classes_of(data: Any) -> tuple[str, ...] | None:
    """The names that torchvision's data sets have, also those behind a `Subset`."""
    names = getattr(data, "classes", None)
    if names is None and isinstance(data, torch_data.Subset):
        return _classes_of(data.dataset)
    if isinstance(names, (list, tuple)) and names and all(isinstance(n, str) for n in names):
        return tuple(names)
    return None


def _labels_of(data: Any) -> Any:
    """The labels that torchvision's data sets have apart from their images."""
    if isinstance(data, torch_data.Subset):
        labels = _labels_of(data.dataset)
        return None if labels is None else [labels[index] for index in data.indices]
    return getattr(data, "targets", None)


def _is_frame(data: Any) -> bool:
    return hasattr(data, "iloc") and hasattr(data, "columns")
