"""Labelled images that a Python object gives one by one, or in batches."""

from __future__ import annotations

import bisect
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flatguard.data.arrays import as_tensor
from flatguard.data.dataset import Dataset
from flatguard.data.pictures import PictureDataset, as_seen, decoded, open_picture
from flatguard.environment.randomness import seeded
from flatguard.errors import DataError, FlatguardError, one_line

IMAGE_KEYS = ("images", "image", "img", "pixel_values", "x", "x_test", "data", "input", "inputs")
LABEL_KEYS = ("labels", "label", "y", "y_test", "targets", "target", "fine_label", "coarse_label")
_READ_AGAIN = 8
_CPU = torch.device("cpu")


class Samples(PictureDataset):
    """Samples that are read one by one: a torch Dataset, a list, a Hugging Face data set.

    Args:
        read: gives the sample with a number, as `(image, label)` or as a dict with both. An image
            is an array, a tensor, or a picture of Pillow.
        length: the number of samples.
        name: of the data set.
    """

    all_labels: Any = None

    def __init__(self, read: Callable[[int], Any], length: int, name: str):
        super().__init__(name, length)
        self._read = read

    def sample(self, number: int) -> tuple[Tensor, Tensor]:
        """One image and its label."""
        where = f"{self.name}: sample {number}"
        with reading_of(where):
            image, label = pair_of(self._read(number), where)
        if isinstance(image, Mapping):
            image = _undecoded(image, where)
        if is_picture(image):
            with reading_of(where):
                seen = as_seen(image, where)
            pixels, self._channels_first = self._tensor_of(seen, where), True
        elif np.ndim(image) < 2:
            raise DataError(f"{where}: expected an image and a label, got no image in the first")
        elif self._size is not None:
            raise DataError(f"--resize is for pictures; {where} is an array")
        else:
            pixels = as_tensor(image, where)
        return pixels, _label(label, where)

    def labels(self) -> Tensor | None:
        """The labels of all samples, where the caller's data set has them apart from its images."""
        given = self.all_labels
        if not isinstance(given, (list, tuple, np.ndarray, Tensor)) or len(given) != len(self):
            return None
        numbers = [int(label) for label in given if isinstance(label, (int, np.integer, Tensor))]
        return torch.tensor(numbers) if len(numbers) == len(self) else None

    def preprocessed(self, preprocessing: str) -> Dataset | None:
        """The same pictures, resized and cropped; None if the images are arrays."""
        return super().preprocessed(preprocessing) if self._has_pictures() else None

    def in_grey(self) -> Dataset | None:
        """The same pictures with one channel; None if the images are arrays."""
        return super().in_grey() if self._has_pictures() else None

    def _has_pictures(self) -> bool:
        with reading_of(self.name):
            image, _ = pair_of(self._read(0), self.name)
        return is_picture(image) or isinstance(image, Mapping)

    def _raw(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        with seeded(0, _CPU):  # the caller's generators stay as they are
            found = [self.sample(number) for number in range(start, stop)]
        images, labels = [image for image, _ in found], [label for _, label in found]
        kinds = {image.dtype for image in images}
        if len(kinds) > 1:
            raise DataError(
                f"{self.name}: expected images of one type, got "
                f"{' and '.join(sorted(str(kind) for kind in kinds))}"
            )
        if len({label.shape for label in labels}) > 1:
            raise DataError(f"{self.name}: expected labels of one shape")
        if len({image.shape for image in images}) > 1:
            self._check_raw_sizes(images, start)
        return torch.stack(images), torch.stack([label.to(labels[0].dtype) for label in labels])

    def _check_raw_sizes(self, images: list[Tensor], start: int) -> None:
        for number, image in enumerate(images):
            if image.shape != images[0].shape:
                raise DataError(
                    f"{self.name}: images of different sizes: sample {start + number} has "
                    f"{tuple(image.shape)}, sample {start} {tuple(images[0].shape)}; give all the "
                    "same size, pictures with --resize"
                )


class Batches(Dataset):
    """A list of batches as a loader gives them: `(images, labels)`, or dicts with both."""

    def __init__(self, batches: Sequence[Any], name: str):
        pairs = []
        for number, batch in enumerate(batches):
            where = f"{name}: batch {number}"
            images, labels = pair_of(batch, where)
            if len(images) != len(labels):
                raise DataError(f"{where}: {len(images)} images but {len(labels)} labels")
            pairs.append((images, labels))
        self._pairs = [pair for pair in pairs if len(pair[1])]
        self._ends = list(accumulate(len(labels) for _, labels in self._pairs))
        super().__init__(name, self._ends[-1] if self._ends else 0)

    def _raw(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        images, labels = [], []
        index = bisect.bisect_right(self._ends, start)
        while start < stop:
            first = self._ends[index] - len(self._pairs[index][1])
            part = slice(start - first, stop - first)
            images.append(as_tensor(self._pairs[index][0][part], self.name))
            labels.append(_label(self._pairs[index][1][part], self.name))
            start, index = self._ends[index], index + 1
        shapes = {tuple(image.shape[1:]) for image in images}
        if len(shapes) > 1 or len({image.dtype for image in images}) > 1:
            raise DataError(
                f"{self.name}: expected batches of one size and type, got "
                f"{' and '.join(str(shape) for shape in sorted(shapes))}"
            )
        return torch.cat(images), torch.cat(labels)


def _undecoded(image: Mapping[Any, Any], where: str) -> Any:
    """A picture of Hugging Face that is not decoded: its bytes, or the path of its file."""
    held, path = image.get("bytes"), image.get("path")
    if isinstance(held, bytes):
        with reading_of(where):
            return decoded(io.BytesIO(held), where)
    if isinstance(path, str):
        return open_picture(Path(path))
    raise DataError(f"{where}: expected an image, got a dict of {', '.join(map(str, image))[:80]}")


def is_picture(image: Any) -> bool:
    """Whether an object is a picture of Pillow."""
    return hasattr(image, "getexif") and hasattr(image, "convert")


def is_example(item: Any) -> bool:
    """Whether an object is an image with its label, or a batch of both."""
    if isinstance(item, Mapping):
        return True
    if not isinstance(item, (tuple, list)) or len(item) < 2:
        return False
    image, label = item[0], item[1]
    if is_picture(image):
        return not is_picture(label)
    if not hasattr(image, "shape") or is_picture(label):
        return False
    return np.ndim(image) >= 2 and np.ndim(label) < np.ndim(image)


def pair_of(item: Any, where: str) -> tuple[Any, Any]:
    """The image and the label of a sample, or those of a batch.

    Raises:
        DataError: it has none, or several that could be meant.
    """
    if isinstance(item, Mapping):
        return _by_key(item, IMAGE_KEYS, where), _by_key(item, LABEL_KEYS, where)
    if isinstance(item, (tuple, list)) and len(item) >= 2:
        if isinstance(item[1], Mapping):
            raise DataError(f"{where}: expected a class as label, got a dict")
        return item[0], item[1]
    got = f"{len(item)} objects" if isinstance(item, (tuple, list)) else type(item).__name__
    raise DataError(f"{where}: expected an image and a label, got {got}")


def _by_key(item: Mapping[Any, Any], keys: tuple[str, ...], where: str) -> Any:
    found = [key for key in keys if key in item]
    if len(found) == 1:
        return item[found[0]]
    names = found or [str(key) for key in item]
    got = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
    raise DataError(
        f"{where}: expected one of the keys {', '.join(keys[:4])}, ..., got {got}; rename or "
        "remove columns"
    )


def _label(label: Any, where: str) -> Tensor:
    if isinstance(label, Tensor):
        return as_tensor(label, where)
    array = np.asarray(label)
    if array.dtype.kind not in "biuf":
        got = "none" if label is None else repr(label)[:40]
        raise DataError(
            f"{where}: expected the number of a class as label, got {got}; number the names in "
            "the model's order (in a Hugging Face data set, cast_column to a ClassLabel)"
        )
    return as_tensor(array, where)


@contextmanager
def reading_of(where: str) -> Iterator[None]:
    """Turn any error of the caller's data set into one line that names the sample."""
    try:
        yield
    except FlatguardError:
        raise
    except Exception as error:  # a user's data set may raise anything
        raise DataError(
            f"{where} cannot be read: {type(error).__name__}: {one_line(error)}"
        ) from error


def read_again(dataset: Samples) -> None:
    """Read the first samples three times, and refuse a data set that changes them.

    Raises:
        DataError: random augmentation, or samples in another order.
    """
    count = min(_READ_AGAIN, len(dataset))
    seen = []
    for seed in (1, 2, 3):
        with seeded(seed, _CPU):
            seen.append([dataset.sample(number) for number in range(count)])
    for number, first in enumerate(seen[0]):
        for again in seen[1:]:
            if not all(
                torch.equal(one.nan_to_num(), other.nan_to_num())
                for one, other in zip(first, again[number], strict=True)
            ):
                raise DataError(
                    f"{dataset.name}: sample {number} is another one each time it is read; leave "
                    "out random transforms, as for testing"
                )
