"""Which samples are evaluated: a note on few classes, and an order that a seed draws."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Subset, TensorDataset

import flatguard
from flatguard.data import arranged, load_dataset
from flatguard.data.arrays import ArrayDataset
from flatguard.data.given import given_dataset
from flatguard.data.sampling import Shuffled, class_note

LABELS = np.repeat(np.arange(5), 20)
IMAGES = np.random.default_rng(0).random((100, 3, 4, 4), dtype=np.float32)
SORTED = ArrayDataset(IMAGES, LABELS, "d.npz")


def folder(root: Path, classes: int = 4, each: int = 6) -> str:
    for label in range(classes):
        (root / f"c{label}").mkdir()
        for number in range(each):
            value = label * 10 + number
            Image.new("L", (4, 4), value).save(root / f"c{label}" / f"{number}.png")
    return str(root)


def test_the_first_images_of_a_folder_are_of_few_classes(tmp_path: Path) -> None:
    data = load_dataset(folder(tmp_path))
    note = class_note(data, 6)
    assert note is not None
    assert note.startswith("the first 6 of 24 images are of 1 of 4 classes (c0): if ")
    assert note.endswith("--shuffle takes samples of all")
    assert class_note(data, 24) is None
    assert class_note(data, 20) is None
    assert class_note(Shuffled(data, 1), 6) is None


@pytest.mark.parametrize(("count", "few"), [(4, True), (20, True), (60, False), (100, False)])
def test_arrays_that_are_sorted(count: int, few: bool) -> None:
    assert (class_note(SORTED, count) is not None) == few


def test_what_is_no_sorted_set_has_no_note() -> None:
    random = np.random.default_rng(1).permutation(LABELS)
    many = np.random.default_rng(1).permutation(1000)  # one image a class
    one = np.zeros(100, int)
    for labels in (random, one, np.eye(5)[LABELS], LABELS + 0.5):
        assert class_note(ArrayDataset(IMAGES, labels, "d"), 20) is None
    images = np.zeros((1000, 1, 2, 2), np.float32)
    assert class_note(ArrayDataset(images, many, "d"), 100) is None


def test_data_sets_of_torch_know_their_labels() -> None:
    class Known(TensorDataset):
        targets = LABELS.tolist()

    data = Known(torch.tensor(IMAGES), torch.tensor(LABELS))
    assert class_note(given_dataset(data, "d"), 20) is not None
    assert class_note(given_dataset(Subset(data, range(10, 90)), "d"), 10) is not None
    assert class_note(given_dataset(Subset(data, range(0, 100, 20)), "d"), 3) is None


def test_the_order_is_the_seed_s() -> None:
    first, again, other = Shuffled(SORTED, 1), Shuffled(SORTED, 1), Shuffled(SORTED, 2)
    labels = first.block(0, 100).labels
    assert torch.equal(labels, again.block(0, 100).labels)
    assert not torch.equal(labels, other.block(0, 100).labels)
    assert torch.equal(labels, first.labels())  # type: ignore[arg-type]
    assert labels.sort().values.tolist() == LABELS.tolist()
    assert torch.equal(first.block(40, 60).images, first.block(0, 100).images[40:60])


def test_a_folder_is_shuffled_with_its_size_and_classes(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    names = tmp_path / "names.txt"
    names.write_text("c3\nc2\nc1\nc0\n")
    data = arranged(load_dataset(folder(tmp_path / "d")), (8, 6), names, 3)
    batch = data.block(0, 24)
    assert batch.images.shape == (24, 3, 8, 6)
    assert data.classes == ("c3", "c2", "c1", "c0")
    values = (batch.images[:, 0, 0, 0] * 255).round().int() // 10
    assert torch.equal(3 - values, batch.labels.int())
    grey = data.in_grey()
    assert grey is not None
    assert torch.equal(grey.block(0, 24).labels, batch.labels)


def test_a_shuffled_run_is_taken_up(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 5))
    ask = {"attack": "torchattacks:FGSM", "eps": "1/255", "norm": "Linf", "checks": "none"}
    data = (IMAGES, LABELS)
    run = flatguard.evaluate(
        model, **ask, data=data, n_examples=20, shuffle=True, batch_size=5, shard="1/2",
        out=tmp_path / "part",
    )  # fmt: skip
    whole = flatguard.evaluate(
        model, **ask, data=data, n_examples=20, shuffle=True, batch_size=5, out=tmp_path / "whole"
    )
    assert whole.samples["label"].nunique() == 5
    again = flatguard.resume(run, model=model, data=data)
    assert again.samples["label"].tolist() == whole.samples["label"][: len(again.samples)].tolist()
