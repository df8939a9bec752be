"""`--classes`: the model's order of classes, also for a subset of them."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flatguard.data import arranged, load_dataset
from flatguard.data.arrays import ArrayDataset
from flatguard.data.class_names import read_classes
from flatguard.errors import DataError


@pytest.fixture
def folder(tmp_path: Path) -> str:
    for name in ("ant", "cat"):
        (tmp_path / "images" / name).mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(tmp_path / "images" / name / "a.png")
    return str(tmp_path / "images")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("c.txt", "dog\ncat\nant\n\n"),
        ("c.txt", "\ufeffdog\r\ncat \r\nant"),
        ("c.json", json.dumps(["dog", "cat", "ant"])),
        ("c.json", json.dumps({"ant": 2, "cat": 1, "dog": 0})),
        ("c.json", json.dumps({"0": ["dog", "a dog"], "1": ["cat", "x"], "2": ["ant", "y"]})),
    ],
)
def test_labels_follow_from_names(name: str, text: str, folder: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    dataset = arranged(load_dataset(folder), None, tmp_path / name)
    assert dataset.block(0, 2).labels.tolist() == [2, 1]
    assert dataset.classes == ("dog", "cat", "ant")
    assert dataset.notes == ("classes: 1 = cat, 2 = ant (2 by --classes)",)
    dataset.check_classes(3)
    with pytest.raises(DataError, match="--classes has 3 names, and the model has 10 classes"):
        dataset.check_classes(10)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("dog\ncat\n", "has no 'ant', which images has"),
        ("ant\nant\ncat", "has 'ant' twice"),
        ("ant\n\ncat", "has no name for class 1"),
        ("\n", "holds no names"),
    ],
)
def test_files_that_do_not_fit(text: str, expected: str, folder: str, tmp_path: Path) -> None:
    (tmp_path / "c.txt").write_text(text)
    with pytest.raises(DataError, match=expected):
        arranged(load_dataset(folder), None, tmp_path / "c.txt")


def test_json_without_names(tmp_path: Path) -> None:
    for content in ({"1": "ant"}, {"0": 1.5}, 3, [[1]]):
        (tmp_path / "c.json").write_text(json.dumps(content))
        with pytest.raises(DataError, match="expected a"):
            read_classes(tmp_path / "c.json")
    with pytest.raises(DataError, match="no file"):
        read_classes(tmp_path / "none.txt")


def test_folders_that_count_from_one(tmp_path: Path) -> None:
    for number in range(1, 12):
        (tmp_path / "images" / str(number)).mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(tmp_path / "images" / str(number) / "a.png")
    plain = load_dataset(str(tmp_path / "images"))
    with pytest.raises(DataError, match="a folder whose name is a number has this label"):
        plain.check_label(11, 11, 0)
    (tmp_path / "c.txt").write_text("\n".join(str(number) for number in range(1, 12)))
    dataset = arranged(plain, None, tmp_path / "c.txt")
    assert sorted(dataset.block(0, 11).labels.tolist()) == list(range(11))


def test_labels_of_arrays_are_the_models_already(tmp_path: Path) -> None:
    (tmp_path / "c.txt").write_text("ant\ncat\n")
    arrays = ArrayDataset(np.zeros((2, 4, 4, 3), np.uint8), np.array([1, 0]), "d")
    dataset = arranged(arrays, None, tmp_path / "c.txt")
    assert (dataset.classes, dataset.block(0, 2).labels.tolist()) == (("ant", "cat"), [1, 0])
