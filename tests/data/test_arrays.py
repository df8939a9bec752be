"""Arrays: labels of every numeric type are read, and arrays of wrong shapes are refused."""

import numpy as np
import pytest
import torch

from flatguard.data.arrays import ArrayDataset
from flatguard.errors import DataError

PIXELS = np.random.default_rng(0).integers(0, 256, (10, 8, 6, 3), dtype=np.uint8)


LABELS = np.arange(10) % 3


@pytest.mark.parametrize("kind", [">i8", "<u2", "f8", "i1"])
def test_labels_of_any_kind_of_number(kind: str) -> None:
    assert ArrayDataset(PIXELS, LABELS.astype(kind), "d").block(0, 10).labels.tolist() == list(
        LABELS
    )


@pytest.mark.parametrize(
    ("images", "labels", "expected"),
    [
        (PIXELS, LABELS[:9], "10 images but 9 labels"),
        (PIXELS, np.eye(10) / 2, "expected one label an image"),
        (PIXELS.reshape(10, -1), LABELS, "expected images"),
        (PIXELS, LABELS + 0.5, "expected integer labels, got 0.5"),
        (PIXELS, LABELS.astype(str), "expected numbers"),
        (PIXELS, np.array(3), "expected images .n, .... and labels"),
        (PIXELS * 1.0, LABELS, "divide by 255, or store uint8"),
        (PIXELS.astype(np.int32), LABELS, "expected uint8 or floating-point"),
        (PIXELS[:0], LABELS[:0], "holds no images"),
    ],
)
def test_arrays_that_are_no_images(images: np.ndarray, labels: np.ndarray, expected: str) -> None:
    with pytest.raises(DataError, match=expected):
        ArrayDataset(images, labels, "d").block(0, 10)


def test_images_that_are_too_large() -> None:
    huge = torch.zeros(1).expand(2, 3, 100_000, 100_000)  # one number in memory
    with pytest.raises(DataError, match="too large"):
        ArrayDataset(huge, LABELS[:2], "d")
