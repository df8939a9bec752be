"""The demo is the first 20 images of CIFAR-10."""

from pathlib import Path

import torch

from flatguard.data import load_dataset
from flatguard.data.dataset import Batch


def test_the_demo(demo_batch: Batch) -> None:
    assert demo_batch.images.shape == (20, 3, 32, 32)
    labels = [3, 8, 8, 0, 6, 6, 1, 6, 3, 1, 0, 9, 5, 7, 9, 8, 5, 7, 8, 6]
    assert demo_batch.labels.tolist() == labels


def test_the_demo_is_the_first_20_of_cifar(demo_batch: Batch, real: Path) -> None:
    published = load_dataset(str(real / "cifar10_test_first1000.npz")).block(0, 20)
    assert torch.equal(published.images, demo_batch.images)
    assert torch.equal(published.labels, demo_batch.labels)
