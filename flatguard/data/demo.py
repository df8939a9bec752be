"""The demo's images: 20 CIFAR-10 samples that the foolbox package contains."""

from __future__ import annotations

import importlib.resources

from flatguard.data.cifar import CIFAR10_CLASSES
from flatguard.data.dataset import Dataset
from flatguard.data.image_files import ImageFiles


def load() -> Dataset:
    """The samples in foolbox's order; each file name ends with its label."""
    folder = importlib.resources.files("foolbox") / "data"
    with importlib.resources.as_file(folder) as path:
        files = sorted(path.glob("cifar10_*.png"))
    labels = [int(file.stem.rpartition("_")[2]) for file in files]
    served = ImageFiles(files, labels, None, "demo")
    served.classes = CIFAR10_CLASSES
    return served
