"""Data from Python: every form gives the same; what has no fixed order is refused by name."""

import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch.utils import data as torch_data

from flatguard.data import arranged
from flatguard.data.dataset import Dataset
from flatguard.data.given import given_dataset
from flatguard.errors import DataError, FlatguardError

PIXELS = np.random.default_rng(0).integers(0, 256, (10, 8, 6, 3), dtype=np.uint8)
IMAGES = torch.tensor(PIXELS).permute(0, 3, 1, 2).float() / 255
LABELS = torch.arange(10) % 3
TENSORS = torch_data.TensorDataset(IMAGES, LABELS)


def given(data: Any) -> Dataset:
    return given_dataset(data, "images from Python")


class Indexed(torch_data.Dataset[Any]):
    """A data set whose samples have this form."""

    classes = ("ant", "bee", "cat")

    def __init__(self, form: Callable[[int], Any], length: int = 10):
        self.form, self.length = form, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Any:
        return self.form(index)


def sample(index: int) -> Any:
    return IMAGES[index], int(LABELS[index])


def picture(index: int) -> Image.Image:
    return Image.fromarray(PIXELS[index])


class HuggingFace:
    """The capabilities of a `datasets.Dataset`: columns, features, rows as dicts."""

    def __init__(self, rows: list[dict[str, Any]], names: tuple[str, ...] = ("a", "b", "c")):
        self.rows, self.column_names = rows, list(rows[0])
        named = type("ClassLabel", (), {"names": list(names)})()
        self.features = {"image": object(), "label": named}

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.rows[index]


def png(index: int) -> dict[str, Any]:
    stream = io.BytesIO()
    picture(index).save(stream, "PNG")
    return {"bytes": stream.getvalue(), "path": None}


def rows(column: Callable[[int], Any]) -> HuggingFace:
    return HuggingFace([{"image": column(i), "label": int(LABELS[i])} for i in range(10)])


FORMS: dict[str, Callable[[], Any]] = {
    "a pair": lambda: (IMAGES, LABELS),
    "a list of two": lambda: [IMAGES, LABELS],
    "bytes with channels last": lambda: (PIXELS, LABELS.numpy()),
    "a dict": lambda: {"images": IMAGES, "labels": LABELS},
    "float labels": lambda: (IMAGES, LABELS.double()),
    "a column of labels": lambda: (IMAGES, LABELS[:, None].int()),
    "one-hot labels": lambda: (IMAGES, np.eye(3)[LABELS]),
    "labels of pandas": lambda: (IMAGES, pd.Series(LABELS.numpy(), index=range(5, 15))),
    "lists": lambda: (list(IMAGES), LABELS.tolist()),
    "pictures": lambda: ([picture(i) for i in range(10)], LABELS.tolist()),
    "samples": lambda: [sample(i) for i in range(10)],
    "a torch Dataset": lambda: Indexed(sample),
    "a Dataset of dicts": lambda: Indexed(lambda i: {"image": IMAGES[i], "label": LABELS[i]}),
    "a Dataset of pictures": lambda: Indexed(lambda i: (picture(i), LABELS[i])),
    "a Dataset with metadata": lambda: Indexed(lambda i: (*sample(i), {"place": 1})),
    "a Subset": lambda: torch_data.Subset(Indexed(sample), range(10)),
    "a DataLoader": lambda: torch_data.DataLoader(TENSORS, batch_size=4, num_workers=2),
    "a DataLoader without batches": lambda: torch_data.DataLoader(TENSORS, batch_size=None),
    "a list of batches": lambda: list(torch_data.DataLoader(TENSORS, batch_size=4)),
    "a list of two batches": lambda: list(torch_data.DataLoader(TENSORS, batch_size=5)),
    "Hugging Face": lambda: rows(picture),
    "Hugging Face, not decoded": lambda: rows(png),
    "Hugging Face as tensors": lambda: rows(lambda i: torch.tensor(PIXELS[i])),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same(form: str) -> None:
    dataset, state = given(FORMS[form]()), torch.random.get_rng_state()
    batch = dataset.block(1, 9)
    assert torch.equal(batch.images, IMAGES[1:9])
    assert batch.labels.tolist() == LABELS[1:9].tolist()
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("form", ["a pair", "pictures", "a DataLoader", "a list of batches"])
def test_workers_can_be_given_the_data(form: str) -> None:
    sent = pickle.loads(pickle.dumps(given(FORMS[form]())))  # noqa: S301
    assert torch.equal(sent.block(0, 10).images, IMAGES)


def test_class_names_come_along() -> None:
    for data in (Indexed(sample), torch_data.Subset(Indexed(sample), [1, 2]),
                 torch_data.DataLoader(Indexed(sample), batch_size=2)):  # fmt: skip
        assert given(data).classes == ("ant", "bee", "cat")
    assert given(rows(picture)).classes == ("a", "b", "c")


HF_IMAGE, HF_VALUE = type("Image", (), {})(), type("Value", (), {})()
"""Hugging Face's features are known by the names of their classes."""


def typed(rows: list[dict[str, Any]], **features: object) -> HuggingFace:
    data = HuggingFace(rows)
    names = data.features["label"]
    data.features = {key: names if each == "names" else each for key, each in features.items()}
    return data


def test_columns_of_hugging_face_are_known_by_their_types() -> None:
    found = [{"jpg": picture(i), "cls": int(LABELS[i]), "label": "text"} for i in range(10)]
    served = given(typed(found, jpg=HF_IMAGE, cls="names", label=HF_VALUE))
    assert torch.equal(served.block(0, 10).labels, LABELS)
    assert served.classes == ("a", "b", "c")
    renamed = [{"pixel_values": sample(i)[0], "labels": int(LABELS[i])} for i in range(10)]
    served = given(typed(renamed, jpg=HF_IMAGE, cls="names"))  # a transform renames columns
    assert torch.equal(served.block(0, 10).images, IMAGES)


def test_pictures_of_hugging_face_that_are_files(tmp_path: Path) -> None:
    for i in range(10):
        picture(i).save(tmp_path / f"{i}.png")
    found = rows(lambda i: {"bytes": None, "path": str(tmp_path / f"{i}.png")})
    assert torch.equal(given(found).block(0, 10).images, given(rows(picture)).block(0, 10).images)
    with pytest.raises(DataError, match="sample 0: expected an image, got a dict of bytes, path"):
        given(rows(lambda i: {"bytes": None, "path": None}))


def test_labels_of_hugging_face_that_are_names() -> None:
    with pytest.raises(DataError, match=r"got 'cat'; number the names .* cast_column"):
        given(HuggingFace([{"image": picture(i), "label": "cat"} for i in range(3)]))


def test_formats_of_hugging_face() -> None:
    """`set_format` gives tensors with the channels first, or arrays with the channels last."""
    first = [torch.tensor(pixels).permute(2, 0, 1) for pixels in PIXELS]
    for column in (first, PIXELS):
        found = [{"image": column[i], "label": np.int64(LABELS[i])} for i in range(10)]
        served = given(HuggingFace(found))
        assert torch.equal(served.block(0, 10).images, given((PIXELS, LABELS)).block(0, 10).images)


class Shuffled(torch_data.Sampler[int]):
    def __iter__(self) -> Any:
        return iter(torch.randperm(10).tolist())

    def __len__(self) -> int:
        return 10


class Stream(torch_data.IterableDataset[Any]):
    def __iter__(self) -> Any:
        return iter([sample(0)])


def flipped(index: int) -> Any:
    image, label = sample(index)
    return (image.flip(-1) if torch.rand(()) < 0.5 else image), label


def damaged(index: int) -> Any:
    if index == 4:
        raise OSError("bad jpeg")
    return sample(index)


def loader(**how: Any) -> Any:
    return torch_data.DataLoader(TENSORS, batch_size=3, **how)


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "shuffle": (lambda: loader(shuffle=True), r"shuffles.*RandomSampler.*shuffle=False"),
    "shuffle with a seed": (
        lambda: loader(shuffle=True, generator=torch.Generator().manual_seed(1)), "shuffles"),
    "weights": (
        lambda: loader(sampler=torch_data.WeightedRandomSampler([1.0] * 10, 10)), "shuffles"),
    "a sampler of one's own": (lambda: loader(sampler=Shuffled()), r"shuffles.*Shuffled"),
    "augmentation": (lambda: Indexed(flipped), "sample 0 is another one|random transforms"),
    "augmentation in a loader": (
        lambda: torch_data.DataLoader(Indexed(flipped), batch_size=5), "random transforms"),
    "a stream": (Stream, r"Stream gives its samples one after the other.*list"),
    "a loader of a stream": (lambda: torch_data.DataLoader(Stream()), r"data=list\(loader\)"),
    "a generator": (lambda: (sample(i) for i in range(3)), "generator gives its samples"),
    "one array": (lambda: IMAGES, r"got one array; give \(images, labels\)"),
    "a table": (lambda: pd.DataFrame({"a": [1]}), "got a table"),
    "swapped": (lambda: (LABELS, IMAGES), "give the images first"),
    "no labels": (lambda: Indexed(lambda i: IMAGES[i]), "expected an image and a label"),
    "labels of text": (lambda: Indexed(lambda i: (IMAGES[i], "cat")), "label, got 'cat'"),
    "labels of None": (lambda: [(IMAGES[0], None)], "as label, got none"),
    "boxes": (lambda: Indexed(lambda i: (IMAGES[i], {"boxes": 1})), "label, got a dict"),
    "the index first": (lambda: Indexed(lambda i: (i, *sample(i))), "got no image"),
    "soft labels": (lambda: (IMAGES, np.eye(3)[LABELS] * 0.9), "sample 0 is not one-hot"),
    "labels of nan": (lambda: (IMAGES, LABELS / 0.0), "integer labels, got (nan|inf) for sample 0"),
    "lengths": (lambda: (IMAGES, LABELS[:3]), "10 images but 3 labels"),
    "nothing": (list, "holds no images"),
    "no samples": (lambda: (IMAGES[:0], LABELS[:0]), "holds no images"),
    "a damaged sample": (lambda: Indexed(damaged), "sample 4 cannot be read: OSError: bad jpeg"),
    "two sizes": (lambda: ([IMAGES[0], IMAGES[1][:, :4]], [0, 1]), "different sizes: sample 1"),
    "batches of two sizes": (
        lambda: [(IMAGES, LABELS), (IMAGES[:, :, :4], LABELS)], "different sizes|one size"),
    "splits": (lambda: {"train": rows(picture), "test": rows(picture)}, "got train, test"),
    "two labels": (
        lambda: HuggingFace([{"image": picture(0), "fine_label": 1, "coarse_label": 2}]),
        "got fine_label, coarse_label"),
    "a number": (lambda: 3, "got int"),
}  # fmt: skip


@pytest.mark.parametrize("form", REFUSED)
def test_what_is_refused(form: str) -> None:
    make, expected = REFUSED[form]
    with pytest.raises(FlatguardError, match=expected) as caught:
        given(make()).block(0, 20)
    assert "\n" not in str(caught.value)


def test_a_loader_that_drops_the_last_batch_says_so() -> None:
    dataset = given(loader(drop_last=True))
    assert len(dataset) == 9
    assert "leaves out 1 images" in dataset.notes[0]


def test_pictures_from_python_are_resized() -> None:
    pictures = ([Image.new("RGB", (8, 6)), Image.new("RGB", (9, 6))], [0, 1])
    with pytest.raises(DataError, match="--resize"):
        given(pictures).block(0, 2)
    assert arranged(given(pictures), (4, 5), None).block(0, 2).images.shape == (2, 3, 4, 5)
    with pytest.raises(DataError, match="--resize is for pictures"):
        arranged(given((IMAGES, LABELS)), (4, 5), None)
