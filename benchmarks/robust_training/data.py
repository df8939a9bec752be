"""scikit-learn's digits, cut into what is trained on, what stops early, and what is measured."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.masking_zoo.digits import digits
from flatguard.data.dataset import Batch

EPS = 0.15
"""The radius in ℓ∞, of images in [0, 1]."""

TRAINING, HELD_OUT = 250, 300
"""So few images that robust overfitting shows; the next ones choose the epoch to stop at."""


@dataclass(frozen=True)
class Parts:
    """Disjoint parts of the digits, in one fixed random order."""

    training: Batch
    held_out: Batch
    test: Batch


def parts() -> Parts:
    """250, 300 and 1,247 images."""
    images, labels = digits()
    cut = [TRAINING, HELD_OUT, len(labels) - TRAINING - HELD_OUT]
    pairs = zip(images.split(cut), labels.split(cut), strict=True)
    training, held_out, test = (Batch(x, y) for x, y in pairs)
    return Parts(training, held_out, test)


def write(folder: Path) -> None:
    """`training.npz`, `held_out.npz` and `test.npz`, as a user has them."""
    found = parts()
    for name, batch in vars(found).items():
        images = batch.images.permute(0, 2, 3, 1).numpy()
        np.savez_compressed(folder / f"{name}.npz", images=images, labels=batch.labels.numpy())
