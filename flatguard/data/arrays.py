"""Images and labels in NumPy arrays or torch tensors."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flatguard.data.dataset import LARGEST_IMAGE, Dataset
from flatguard.errors import DataError


class ArrayDataset(Dataset):
    """Arrays or tensors, possibly memory-mapped; each block is read on demand."""

    def __init__(self, images: Any, labels: Any, name: str):
        if np.ndim(images) < 3 or np.ndim(labels) < 1:
            raise DataError(
                f"{name}: expected images (n, ...) and labels (n,), got shapes "
                f"{np.shape(images)} and {np.shape(labels)}"
            )
        if len(images) != len(labels):
            raise DataError(f"{name}: {len(images)} images but {len(labels)} labels")
        if np.ndim(labels) != 1 and tuple(labels.shape[1:]) != (1,):
            raise DataError(f"{name}: expected one label an image, got {tuple(labels.shape)}")
        if math.prod(np.shape(images)[1:]) > LARGEST_IMAGE:
            raise DataError(f"{name}: images of {tuple(np.shape(images)[1:])} are too large")
        super().__init__(name, len(labels))
        self._images, self._labels = images, labels

    def _raw(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        images, labels = self._images[start:stop], self._labels[start:stop]
        return _tensor(images, self.name), _tensor(labels, self.name).reshape(-1)


def _tensor(part: Any, name: str) -> Tensor:
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
