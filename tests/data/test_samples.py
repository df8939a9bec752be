"""Samples one by one and batches: forms, keys, sizes, types, and what changes when read again."""

import io
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from flatguard.data.samples import Batches, Samples, is_example, is_picture, pair_of, read_again
from flatguard.errors import DataError

IMAGE = torch.rand(3, 4, 4, generator=torch.Generator().manual_seed(0))
PICTURE = Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3))


def served(*items: Any) -> Samples:
    return Samples(items.__getitem__, len(items), "d")


def test_the_first_images_and_labels() -> None:
    data = served((IMAGE, 1), (IMAGE.numpy() / 2, np.int64(2)), (IMAGE, torch.tensor(0)))
    batch = data.block(0, 3)
    assert torch.allclose(batch.images, torch.stack([IMAGE, IMAGE / 2, IMAGE]))
    assert batch.labels.tolist() == [1, 2, 0]


def test_pictures_and_bytes_of_pictures_are_the_same() -> None:
    stream = io.BytesIO()
    PICTURE.save(stream, "PNG")
    data = served((PICTURE, 0), {"image": {"bytes": stream.getvalue(), "path": None}, "label": 0})
    images = data.block(0, 2).images
    assert images.shape == (2, 3, 4, 4)
    assert torch.equal(images[0], images[1])
    assert data.resized((8, 6)).block(0, 1).images.shape == (1, 3, 8, 6)


@pytest.mark.parametrize(
    ("item", "what"),
    [
        ((1, 2), "expected an image and a label, got no image in the first"),
        (IMAGE, "expected an image and a label, got Tensor"),
        ((IMAGE,), "expected an image and a label, got 1 objects"),
        ((IMAGE, {"boxes": 1}), "expected a class as label, got a dict"),
        ((IMAGE, "cat"), "expected the number of a class as label, got 'cat'"),
        ((IMAGE, None), "expected the number of a class as label, got none"),
        ({"image": IMAGE}, "expected one of the keys labels, label, y, y_test, ..., got image"),
        (
            {"image": IMAGE, "label": 1, "fine_label": 2},
            "got label, fine_label; rename or remove columns",
        ),
        ({str(i): IMAGE for i in range(99)}, "got 0, 1, 2, 3, 4, 5, 6, 7, ...; rename"),
    ],
)
def test_a_sample_that_is_none_is_named(item: Any, what: str) -> None:
    with pytest.raises(DataError) as caught:
        served(item).block(0, 1)
    assert what in str(caught.value)
    assert str(caught.value).startswith("d: sample 0")


def test_a_data_set_that_raises_is_one_line() -> None:
    def read(index: int) -> Any:
        raise OSError(f"no file for\n{index}")

    with pytest.raises(DataError, match="d: sample 0 cannot be read: OSError: no file for"):
        Samples(read, 3, "d").block(0, 1)


@pytest.mark.parametrize(
    ("other", "what"),
    [
        ((IMAGE.double(), 1), "expected images of one type, got torch.float32 and torch.float64"),
        ((IMAGE[:, :3], 1), r"sample 1 has \(3, 3, 4\), sample 0 \(3, 4, 4\)"),
        ((IMAGE, [0, 1]), "expected labels of one shape"),
    ],
)
def test_samples_that_differ_are_named(other: Any, what: str) -> None:
    with pytest.raises(DataError, match=what):
        served((IMAGE, 0), other).block(0, 2)


def test_arrays_are_not_resized() -> None:
    with pytest.raises(DataError, match="--resize is for pictures; d: sample 0 is an array"):
        served((IMAGE, 0)).resized((2, 2)).block(0, 1)
    assert served((IMAGE, 0)).in_grey() is None


def test_what_changes_when_it_is_read_again_is_refused() -> None:
    read_again(served((IMAGE, 0), (torch.full_like(IMAGE, float("nan")), 1)))
    noisy = Samples(lambda index: (IMAGE + torch.rand(()), 0), 3, "d")
    with pytest.raises(DataError, match="sample 0 is another one each time it is read; leave"):
        read_again(noisy)


def test_reading_leaves_the_callers_generators() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    Samples(lambda index: (IMAGE * torch.rand(()), 0), 3, "d").block(0, 3)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("size", [1, 3, 4, 10])
def test_batches_in_any_blocks(size: int) -> None:
    images, labels = torch.rand(10, 3, 4, 4), torch.arange(10) % 3
    batches = list(zip(images.split(size), labels.split(size), strict=True))
    data = Batches([*batches, (images[:0], labels[:0])], "d")
    assert len(data) == 10
    for start, stop in ((0, 10), (2, 7), (9, 10)):
        batch = data.block(start, stop)
        assert torch.equal(batch.images, images[start:stop])
        assert torch.equal(batch.labels, labels[start:stop])


def test_batches_that_do_not_fit_are_named() -> None:
    with pytest.raises(DataError, match="batch 1: 2 images but 3 labels"):
        Batches([(IMAGE[None], [0]), (torch.stack([IMAGE] * 2), [0, 1, 2])], "d")
    data = Batches([(IMAGE[None], [0]), (IMAGE[None, :, :3], [1])], "d")
    with pytest.raises(DataError, match=r"batches of one size and type, got \(3, 3, 4\) and"):
        data.block(0, 2)


def test_what_is_an_example() -> None:
    assert is_picture(PICTURE)
    assert not is_picture(IMAGE)
    assert is_example((PICTURE, 1))
    assert is_example({"image": 1})
    assert is_example((IMAGE, 1))
    assert not is_example((PICTURE, PICTURE))
    assert not is_example((IMAGE, IMAGE))
    assert not is_example([IMAGE])
    assert pair_of([IMAGE, 1, "more"], "d") == (IMAGE, 1)
