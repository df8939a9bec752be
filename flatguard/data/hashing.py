"""The hash that identifies the images and labels of a run."""

from __future__ import annotations

import hashlib

from flatguard.data.dataset import Batch


class DataHash:
    """SHA-256 of the images (float32 NCHW bytes) and the labels (int64), in the order served."""

    def __init__(self) -> None:
        self._images, self._labels = hashlib.sha256(), hashlib.sha256()

    def update(self, batch: Batch) -> None:
        """Add the next block."""
        self._images.update(batch.images.numpy().tobytes())
        self._labels.update(batch.labels.numpy().tobytes())

    def hexdigest(self) -> str:
        """The hash of all blocks so far; it does not depend on the block size."""
        return hashlib.sha256(self._images.digest() + self._labels.digest()).hexdigest()
