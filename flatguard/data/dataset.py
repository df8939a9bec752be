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

from flatguard.data.values import as_images, as_labels, check_shape, in_box
from flatguard.environment.torch_state import kept_state
from flatguard.errors import DataError


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
        notes: what a person should see before the attack, such as the labels of folders.
        label_advice: what to do about a label that the model does not have.
        listed: the number of names in the file of `--classes`; None without that option.
    """

    classes: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()
    label_advice: str = ""
    listed: int | None = None
    _shape: tuple[int, ...] | None = None
    _channels_first = False

    def __init__(self, name: str, length: int):
        if length == 0:
            raise DataError(f"{name} holds no images")
        self.name = name
        self._length = length

    def __len__(self) -> int:
        return self._length

    def block(self, start: int, stop: int) -> Batch:
        """Samples `start` to `stop`, checked: four dimensions, one size, finite, in [0, 1].

        Raises:
            DataError: with the first fault and the number of its sample.
        """
        with kept_state():
            raw_images, raw_labels = self._raw(start, min(stop, len(self)))
        check_shape(tuple(raw_images.shape[1:]), self.name)
        images = as_images(raw_images, self.name, self._channels_first)
        images = in_box(images, self.name, start)
        labels = as_labels(raw_labels, self.name, start)
        if len(images) != len(labels):
            raise DataError(f"{self.name}: {len(images)} images but {len(labels)} labels")
        self._check_size(tuple(images.shape[1:]), start)
        return Batch(images, labels)

    def chosen(self, numbers: Sequence[int]) -> Batch:
        """These samples, checked as `block` checks them, but all at once.

        Raises:
            DataError: with the first fault and the number of its sample.
        """
        with kept_state():
            raw = self._raw_rows(numbers)
        layouts = {(images.shape, images.dtype, labels.shape) for images, labels in raw}
        if len(layouts) == 1:
            try:
                images = as_images(
                    torch.cat([images for images, _ in raw]), self.name, self._channels_first
                )
                labels = as_labels(torch.cat([labels for _, labels in raw]), self.name, 0)
                if len(images) == len(labels) == len(numbers):
                    images = in_box(images, self.name, 0)
                    self._check_size(tuple(images.shape[1:]), numbers[0])
                    return Batch(images, labels)
            except DataError:
                pass  # `block` names the sample
        batches = [self.block(number, number + 1) for number in numbers]
        return Batch(
            torch.cat([batch.images for batch in batches]),
            torch.cat([batch.labels for batch in batches]),
        )

    def resized(self, size: tuple[int, int]) -> Dataset:
        """The same pictures, each resized to this height and width.

        Raises:
            DataError: the images are no pictures.
        """
        raise DataError(f"--resize is for pictures; {self.name} is used as it is stored")

    def preprocessed(self, preprocessing: str) -> Dataset | None:
        """The same pictures, resized and cropped; None if the images are used as they are."""
        return None

    def in_grey(self) -> Dataset | None:
        """The same pictures with one channel; None if the images are no pictures."""
        return None

    def labels(self) -> Tensor | None:
        """The labels of all samples, where they are known without reading images; else None."""
        return None

    def served_classes(self) -> tuple[str, ...]:
        """The names of the classes that may occur."""
        return self.classes or ()

    def check_classes(self, num_classes: int) -> None:
        """Refuse a list of `--classes` with another number of names than the model has classes."""
        if self.listed not in (None, num_classes):
            raise DataError(
                f"--classes has {self.listed} names, and the model has {num_classes} classes; "
                "expected all of them, in the model's order"
            )

    def check_label(self, label: int, num_classes: int, sample: int) -> None:
        """Refuse a label outside 0 .. num_classes - 1."""
        if 0 <= label < num_classes:
            return
        advice = self.label_advice
        if not advice and label == num_classes:
            advice = "subtract 1 if the labels count from 1"
        if not advice and label == -1:
            advice = "-1 often marks samples without a label; leave them out"
        raise DataError(
            f"{self.name}: expected labels from 0 to {num_classes - 1}, as the model has "
            f"{num_classes} classes; got {label} for sample {sample}{advice and f'; {advice}'}"
        )

    def _check_size(self, shape: tuple[int, ...], start: int) -> None:
        if self._shape is None:
            self._shape = shape
        if self._shape != shape:
            raise DataError(
                f"{self.name}: images of different sizes: sample {start} has {_sides(shape)}, an "
                f"earlier one {_sides(self._shape)}; give all the same size, pictures with --resize"
            )

    def _raw_rows(self, numbers: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
        """These samples as `_raw` returns them, in one piece or several."""
        return [self._raw(number, number + 1) for number in numbers]

    @abstractmethod
    def _raw(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Images in any layout that `as_images` accepts, and labels."""


def _sides(shape: tuple[int, ...]) -> str:
    return " x ".join(str(side) for side in shape)


def check_labels(batch: Batch, num_classes: int, dataset: Dataset, start: int = 0) -> None:
    """Refuse labels outside 0 .. num_classes - 1."""
    bad = (batch.labels < 0) | (batch.labels >= num_classes)
    if bad.any():
        where = int(bad.nonzero()[0])
        dataset.check_label(int(batch.labels[where]), num_classes, start + where)


def blocks(dataset: Dataset, count: int, size: int) -> Iterator[tuple[int, Batch]]:
    """The first `count` samples in blocks of `size`, each with the number of its first sample."""
    for start in range(0, count, size):
        yield start, dataset.block(start, min(start + size, count))


class Subset(Dataset):
    """Selected samples of another data set, in any order."""

    _channels_first = True

    def __init__(self, whole: Dataset, numbers: Sequence[int], name: str):
        super().__init__(name, len(numbers))
        self.classes = whole.classes
        self._whole, self._numbers = whole, [int(number) for number in numbers]

    def _raw(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        parts = [self._whole.block(i, i + 1) for i in self._numbers[start:stop]]
        return torch.cat([p.images for p in parts]), torch.cat([p.labels for p in parts])
