"""The hash of the data: independent of the blocks, dependent on every value."""

import numpy as np

from flatguard.data.arrays import ArrayDataset
from flatguard.data.dataset import blocks
from flatguard.data.hashing import DataHash

PIXELS = np.random.default_rng(0).integers(0, 256, (10, 8, 6, 3), dtype=np.uint8)


LABELS = np.arange(10) % 3


def hash_of(images: np.ndarray, labels: np.ndarray, size: int = 10) -> str:
    digest = DataHash()
    for _, batch in blocks(ArrayDataset(images, labels, "d"), 10, size):
        digest.update(batch)
    return digest.hexdigest()


def test_the_hash_does_not_depend_on_the_blocks() -> None:
    assert len({hash_of(PIXELS, LABELS, size) for size in (1, 3, 10)}) == 1


def test_one_changed_value_changes_the_hash() -> None:
    images, labels = PIXELS.copy(), LABELS.copy()
    images[9, 0, 0, 0] ^= 1
    labels[9] += 1
    found = {hash_of(i, n) for i in (PIXELS, images) for n in (LABELS, labels)}
    assert len(found) == 4
