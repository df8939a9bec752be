"""Images and labels in NumPy arrays or torch tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flatguard.data.dataset import Dataset
from flatguard.data.values import check_shape
from flatguard.errors import DataError


class ArrayDataset(Dataset):
    """Arrays or tensors, possibly memory-mapped; each block is read on demand."""

    def __init__(self, images: Any, labels: Any, name: str):
        if np.ndim(images) < 3 or np.ndim(labels) < 1:
            swapped = np.ndim(labels) >= 3 and np.ndim(images) in (1, 2)
            raise DataError(
                f"{name}: expected images (n, ...) and labels (n,), got shapes "
                f"{np.shape(images)} and {np.shape(labels)}"
                f"{'; give the images first' if swapped else ''}"
            )
        if len(images) != len(labels):
            raise DataError(f"{name}: {len(images)} images but {len(labels)} labels")
        if np.ndim(labels) > 2:
            raise DataError(
                f"{name}: expected one label an image, got labels of {np.shape(labels)}"
            )
        if len(labels):
            check_shape(tuple(np.shape(images)[1:]), name)
        super().__init__(name, len(labels))
        self._images, self._labels = images, labels

    def labels(self) -> Tensor | None:
        """The labels of all images, where each is one number."""
        if np.ndim(self._labels) != 1:
            return None
        labels = as_tensor(self._labels[:], self.name)
        return (
            None if labels.is_complex() or bool((labels != labels.long()).any()) else labels.long()
        )

    def _raw(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        images, labels = self._images[start:stop], self._labels[start:stop]
        return as_tensor(images, self.name), as_tensor(labels, self.name)

    def _raw_rows(self, numbers: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
        arrays = (np.ndarray, Tensor)
        if not isinstance(self._images, arrays) or not isinstance(self._labels, arrays):
            return super()._raw_rows(numbers)
        images, labels = self._images[list(numbers)], self._labels[list(numbers)]
        return [(as_tensor(images, self.name), as_tensor(labels, self.name))]


def as_tensor(part: Any, name: str) -> Tensor:
    """An array or a tensor as a plain tensor on the CPU, which may share its memory.

    Raises:
        DataError: it holds something else than numbers.
    """
    if isinstance(part, Tensor):
        return part.detach().to("cpu", copy=True)  # the caller's images are not shared
    array = np.asarray(part)
    if array.dtype.kind not in "biuf":
        raise DataError(f"{name}: expected numbers, got {array.dtype}")
    native = array.astype(array.dtype.newbyteorder("="))
    # torch before 2.3 has no uint16 to uint64; labels of these types fit int64.
    return torch.from_numpy(
        native.astype(np.int64)
        if native.dtype.kind == "u" and native.dtype.itemsize > 1
        else native
    )
