"""The interface of a data set: labelled images in blocks, which are checked as they are read.

Every source yields float32 NCHW images in [0, 1] and int64 labels, in a fixed order. No code
assumes that a data set fits in memory.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from flatguard.environment.torch_state import kept_state
from flatguard.errors import DataError

LARGEST_IMAGE = 1 << 26
"""Values of one image: 4,700 x 4,700 pixels in colour."""


@dataclass(frozen=True)
class Batch:
    """`images` is `(n, channels, height, width)` float32 in [0, 1]; `labels` is `(n,)` int64."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


class Dataset(ABC):
    """An ordered set of labelled images. Subclasses read raw slices; this class checks them.

    Attributes:
        name: in messages and reports.
        classes: the names of the classes, in the order of the labels; None if unknown.
    """

    classes: tuple[str, ...] | None = None

    def __init__(self, name: str, length: int):
        if length == 0:
            raise DataError(f"{name} holds no images")
        self.name = name
        self._length = length

    def __len__(self) -> int:
        return self._length

    def block(self, start: int, stop: int) -> Batch:
        """Samples `start` to `stop`, checked: four dimensions, finite, in [0, 1].

        Raises:
            DataError: with the first fault and the number of its sample.
        """
        with kept_state():
            images, labels = self._raw(start, min(stop, len(self)))
        batch = Batch(_as_images(images, self.name), _as_labels(labels, self.name))
        if batch.images.ndim != 4 or batch.images.shape[1] > 4:
            raise DataError(
                f"{self.name}: expected images (n, channels, height, width) or "
                f"(n, height, width, channels), got {tuple(images.shape)}"
            )
        bad = ~((batch.images >= 0) & (batch.images <= 1)).flatten(1).all(dim=1)
        if bad.any():
            where = int(bad.nonzero()[0])
            low, high = batch.images[where].min().item(), batch.images[where].max().item()
            fix = "undo the normalisation in the data and give --mean and --std to the model"
            if low >= 0 and high > 2:
                fix = "divide by 255, or store uint8"
            raise DataError(
                f"{self.name}: expected images in [0, 1] (or uint8), got values from {low:.4g} to "
                f"{high:.4g} in sample {start + where}; {fix}"
            )
        return batch

    @abstractmethod
    def _raw(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Images in any layout that `_as_images` accepts, and labels."""


def check_labels(batch: Batch, num_classes: int, name: str, start: int = 0) -> None:
    """Refuse labels outside 0 .. num_classes - 1."""
    bad = (batch.labels < 0) | (batch.labels >= num_classes)
    if bad.any():
        where = int(bad.nonzero()[0])
        raise DataError(
            f"{name}: expected labels from 0 to {num_classes - 1}, as the model has {num_classes} "
            f"classes; got {int(batch.labels[where])} for sample {start + where}"
        )


def blocks(dataset: Dataset, count: int, size: int) -> Iterator[tuple[int, Batch]]:
    """The first `count` samples in blocks of `size`, each with the number of its first sample."""
    for start in range(0, count, size):
        yield start, dataset.block(start, min(start + size, count))


def _as_images(raw: Tensor, name: str) -> Tensor:
    if raw.dtype == torch.uint8:
        images = raw.float() / 255.0
    elif raw.is_floating_point():
        images = raw.float()
    else:
        raise DataError(f"{name}: expected uint8 or floating-point images, got {raw.dtype}")
    if images.ndim == 3:  # the channel dimension is missing
        images = images.unsqueeze(1)
    if images.ndim == 4 and images.shape[1] not in (1, 3, 4) and images.shape[-1] in (1, 3, 4):
        images = images.permute(0, 3, 1, 2)
    # Attacks need NCHW-contiguous inputs: AutoAttack calls .view on the gradient.
    return images.contiguous()


def _as_labels(raw: Tensor, name: str) -> Tensor:
    if raw.dtype == torch.bool or raw.is_complex():
        raise DataError(f"{name}: expected integer labels, got {raw.dtype}")
    if raw.is_floating_point() and not bool((raw == raw.round()).all()):
        raise DataError(f"{name}: expected integer labels, got {raw[raw != raw.round()][0].item()}")
    return raw.long()


class Subset(Dataset):
    """Selected samples of another data set, in any order."""

    def __init__(self, whole: Dataset, numbers: Sequence[int], name: str):
        super().__init__(name, len(numbers))
        self.classes = whole.classes
        self._whole, self._numbers = whole, [int(number) for number in numbers]

    def _raw(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        parts = [self._whole.block(i, i + 1) for i in self._numbers[start:stop]]
        return torch.cat([p.images for p in parts]), torch.cat([p.labels for p in parts])
