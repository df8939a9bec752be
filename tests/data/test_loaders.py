"""DataLoaders: their order is fixed and theirs, or they are refused by name."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.utils import data as torch_data

from flatguard.data.loaders import check_sampler, of_loader
from flatguard.errors import DataError

IMAGES = torch.rand(10, 3, 4, 4, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(10) % 3
TENSORS = torch_data.TensorDataset(IMAGES, LABELS)


def loader(data: Any = TENSORS, **how: Any) -> Any:
    return torch_data.DataLoader(data, **{"batch_size": 4, **how})


@pytest.mark.parametrize("batch_size", [1, 4, 10, 99])
def test_a_loader_in_its_order(batch_size: int) -> None:
    data = of_loader(loader(batch_size=batch_size), "d")
    assert len(data) == 10
    assert torch.equal(data.block(2, 9).images, IMAGES[2:9])
    assert torch.equal(data.block(2, 9).labels, LABELS[2:9])


def test_the_last_batch_may_be_left_out() -> None:
    data = of_loader(loader(drop_last=True), "d")
    assert len(data) == 8
    assert data.notes == ("the DataLoader leaves out 2 images (drop_last=True)",)
    assert of_loader(loader(drop_last=True, batch_size=5), "d").notes == ()


class Reversed(torch_data.Sampler[int]):
    def __iter__(self) -> Iterator[int]:
        return iter(range(9, -1, -1))

    def __len__(self) -> int:
        return 10


class Drawn(torch_data.Sampler[int]):
    def __iter__(self) -> Iterator[int]:
        return iter(torch.randperm(10).tolist())

    def __len__(self) -> int:
        return 10


def test_a_sampler_of_ones_own_with_a_fixed_order() -> None:
    data = of_loader(loader(sampler=Reversed()), "d")
    assert torch.equal(data.block(0, 10).labels, LABELS.flip(0))
    batches = torch_data.BatchSampler(Reversed(), 3, drop_last=False)
    data = of_loader(torch_data.DataLoader(TENSORS, batch_sampler=batches), "d")
    assert torch.equal(data.block(0, 10).labels, LABELS.flip(0))


SHUFFLED: dict[str, dict[str, Any]] = {
    "shuffle": {"shuffle": True},
    "subset": {"sampler": torch_data.SubsetRandomSampler(range(5))},
    "weights": {"sampler": torch_data.WeightedRandomSampler([1.0] * 10, 10)},
    "own": {"sampler": Drawn()},
}
IN_BATCHES = {
    "random": torch_data.RandomSampler(TENSORS),
    "own": Drawn(),
}


@pytest.mark.parametrize("kind", IN_BATCHES)
def test_a_batch_sampler_that_shuffles_is_refused(kind: str) -> None:
    batches = torch_data.BatchSampler(IN_BATCHES[kind], 3, drop_last=False)
    with pytest.raises(DataError, match="shuffles its samples"):
        of_loader(torch_data.DataLoader(TENSORS, batch_sampler=batches), "d")


def test_a_batch_sampler_of_some_samples() -> None:
    batches = torch_data.BatchSampler([7, 3, 5], 2, drop_last=False)
    data = of_loader(torch_data.DataLoader(TENSORS, batch_sampler=batches), "d")
    assert torch.equal(data.block(0, 3).images, IMAGES[[7, 3, 5]])


@pytest.mark.parametrize("kind", SHUFFLED)
def test_a_loader_that_shuffles_is_refused(kind: str) -> None:
    with pytest.raises(DataError, match=r"shuffles its samples \(\w+\).*data=loader.dataset"):
        of_loader(loader(**SHUFFLED[kind]), "d")


def test_random_transforms_are_refused() -> None:
    class Noisy(torch_data.Dataset[Any]):
        def __len__(self) -> int:
            return 10

        def __getitem__(self, index: int) -> Any:
            return IMAGES[index] * torch.rand(()), 0

    with pytest.raises(DataError, match="other images each time it is read"):
        of_loader(loader(Noisy()), "d")


def test_a_stream_has_no_order_to_come_back_to() -> None:
    class Stream(torch_data.IterableDataset[Any]):
        def __iter__(self) -> Any:
            return iter([(IMAGES[0], 0)])

    with pytest.raises(DataError, match=r"give data=list\(loader\)"):
        of_loader(loader(Stream()), "d")


def test_the_loaders_own_collate_is_used() -> None:
    def halved(items: list[Any]) -> dict[str, Any]:
        images = torch.stack([image for image, _ in items]) / 2
        return {"pixel_values": images, "labels": [int(label) for _, label in items]}

    data = of_loader(loader(collate_fn=halved), "d")
    assert torch.allclose(data.block(0, 10).images, IMAGES / 2)
    assert torch.equal(data.block(0, 10).labels, LABELS)


def test_a_collate_that_fails_is_one_line() -> None:
    def fails(items: list[Any]) -> Any:
        raise ValueError("of one\nsize")

    with pytest.raises(DataError, match="d: samples 0 to 7 cannot be read: ValueError: of one"):
        of_loader(loader(collate_fn=fails), "d")


def test_the_names_of_the_classes_come_along() -> None:
    class Named(torch_data.TensorDataset):
        classes = ("ant", "bee", "cat")

    assert of_loader(loader(Named(IMAGES, LABELS)), "d").classes == ("ant", "bee", "cat")
    assert of_loader(loader(), "d").classes is None


def test_samplers() -> None:
    check_sampler(torch_data.SequentialSampler(TENSORS))
    check_sampler(None)
    with pytest.raises(DataError, match="RandomSampler"):
        check_sampler(torch_data.RandomSampler(TENSORS))
