"""Blocks are checked: images outside the box and labels out of range are refused by number."""

import numpy as np
import pytest
import torch

from flatguard.data.arrays import ArrayDataset
from flatguard.data.dataset import Batch, Subset, blocks, check_labels
from flatguard.errors import DataError

LABELS = np.arange(10) % 3


@pytest.mark.parametrize("factor", [255.0, -1.0, 1.0001])
def test_images_outside_the_box(factor: float) -> None:
    images = np.ones((4, 3, 5, 5), dtype=np.float32) * 0.5
    images[2, 1] = factor
    with pytest.raises(DataError, match=r"expected images in \[0, 1\].*in sample 2"):
        ArrayDataset(images, LABELS[:4], "d").block(0, 4)


def test_images_that_are_nan() -> None:
    images = np.full((2, 3, 5, 5), np.nan, dtype=np.float32)
    with pytest.raises(DataError, match=r"nan in sample 0"):
        ArrayDataset(images, LABELS[:2], "d").block(0, 2)


@pytest.mark.parametrize("label", [-1, 3])
def test_labels_out_of_range(label: int) -> None:
    batch = Batch(torch.zeros(3, 1, 2, 2), torch.tensor([0, label, 2]))
    with pytest.raises(DataError, match=f"labels from 0 to 2.*got {label} for sample 41"):
        check_labels(batch, 3, ArrayDataset(batch.images, batch.labels, "d"), start=40)


@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor, list])
def test_chosen_samples_are_those_of_their_blocks(kind) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (10, 5, 6, 3), dtype=np.uint8)
    data = ArrayDataset(kind(pixels), kind(LABELS), "d")
    numbers = [7, 0, 7, 9]
    batch = data.chosen(numbers)
    alone = [data.block(number, number + 1) for number in numbers]
    assert torch.equal(batch.images, torch.cat([one.images for one in alone]))
    assert torch.equal(batch.labels, torch.cat([one.labels for one in alone]))
    assert torch.equal(Subset(data, range(10), "s").chosen(numbers).images, batch.images)


@pytest.mark.parametrize("value", [255.0, -1.0, float("nan"), float("inf")])
def test_a_fault_of_a_chosen_sample_has_its_number(value: float) -> None:
    images = np.full((10, 3, 5, 5), 0.5, dtype=np.float32)
    images[8, 1] = value
    data = ArrayDataset(images, LABELS, "d")
    assert len(data.chosen([1, 9])) == 2
    with pytest.raises(DataError, match="in sample 8"):
        data.chosen([1, 8, 9])


def test_chosen_samples_do_not_share_the_caller_s_memory() -> None:
    images = np.zeros((4, 3, 5, 5), dtype=np.float32)
    ArrayDataset(images, LABELS[:4], "d").chosen([1, 2]).images.add_(1)
    assert not images.any()


def test_a_subset_keeps_the_requested_order() -> None:
    whole = ArrayDataset(torch.rand(6, 1, 2, 2), torch.arange(6), "whole")
    subset = Subset(whole, [4, 0, 5], "some")
    batch = subset.block(0, 3)
    assert (len(subset), batch.labels.tolist()) == (3, [4, 0, 5])
    assert torch.equal(batch.images[1], whole.block(0, 1).images[0])
    assert subset.block(1, 2).labels.tolist() == [0]


def test_channels_last_images_become_contiguous_channels_first() -> None:
    images = torch.rand(3, 7, 5, 3)
    served = ArrayDataset(images, LABELS[:3], "d").block(0, 3).images
    assert served.shape == (3, 3, 7, 5)
    assert served.is_contiguous()
    assert torch.equal(served, images.permute(0, 3, 1, 2))


def test_blocks_cover_the_first_samples_once() -> None:
    dataset = ArrayDataset(torch.rand(9, 1, 2, 2), torch.arange(9), "d")
    parts = list(blocks(dataset, 7, 3))
    assert [start for start, _ in parts] == [0, 3, 6]
    assert [n for _, batch in parts for n in batch.labels.tolist()] == list(range(7))
