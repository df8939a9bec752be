"""A folder of images: labels come from the names of the subfolders."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from flatguard.data import load_dataset
from flatguard.errors import DataError

PIXELS = np.random.default_rng(0).integers(0, 256, (10, 8, 6, 3), dtype=np.uint8)


LABELS = np.arange(10) % 3


def folder_of(content: bytes, name: str = "a.png") -> str:
    Path("images/cat").mkdir(parents=True)
    Path("images/cat", name).write_bytes(content)
    return "images"


def test_a_folder_of_images(tmp_path: Path) -> None:
    for index, (pixels, label) in enumerate(zip(PIXELS, LABELS, strict=True)):
        folder = tmp_path / ["ant", "bee", "cat"][label]
        folder.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(folder / f"{index}.png")
    dataset = load_dataset(str(tmp_path))
    order = np.argsort(LABELS, kind="stable")
    batch = dataset.block(0, 10)
    assert batch.labels.tolist() == LABELS[order].tolist()
    assert torch.equal(batch.images, torch.tensor(PIXELS[order]).permute(0, 3, 1, 2).float() / 255)


def test_folders_that_are_numbers_are_labels(tmp_path: Path) -> None:
    for name in ("10", "2"):
        (tmp_path / name).mkdir()
        Image.fromarray(PIXELS[0]).save(tmp_path / name / "a.png")
    assert sorted(load_dataset(str(tmp_path)).block(0, 2).labels.tolist()) == [2, 10]


def test_a_pipe_among_pictures() -> None:
    load_dataset(folder_of(b""))
    os.mkfifo("images/cat/b.png")
    assert len(load_dataset("images")) == 1


def test_the_names_of_the_subfolders_are_the_classes() -> None:
    stream = io.BytesIO()
    Image.fromarray(PIXELS[0]).save(stream, "PNG")
    folder = folder_of(stream.getvalue())
    Path(folder, "ant").mkdir()  # empty folders count, too
    dataset = load_dataset(folder)
    assert dataset.classes == ("ant", "cat")
    assert dataset.block(0, 1).labels.tolist() == [1]


def test_labels_that_are_too_long() -> None:
    Path("images", "1" * 30).mkdir(parents=True)
    Path("images", "1" * 30, "a.png").write_bytes(b"")
    with pytest.raises(DataError, match="named by a label"):
        load_dataset("images")


def test_a_folder_without_images() -> None:
    Path("images", "cat").mkdir(parents=True)
    Path("images", "cat", "a.txt").write_text("no image")
    with pytest.raises(DataError, match="expected a subfolder a class"):
        load_dataset("images")


def put(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(PIXELS[0]).save(folder / name, "PNG")


def test_what_systems_and_tools_leave_is_ignored(tmp_path: Path) -> None:
    put(tmp_path, "cat/0.png", "dog/0.png", "__MACOSX/cat/._0.png", "cat/._0.png",
        ".ipynb_checkpoints/0-checkpoint.png", "cat/.ipynb_checkpoints/0.png", "@eaDir/0.png",
        "$RECYCLE.BIN/0.png", ".git/0.png", "__pycache__/0.png")  # fmt: skip
    for name in ("Thumbs.db", ".DS_Store", "desktop.ini", "cat/Thumbs.db", "cat/desktop.ini"):
        (tmp_path / name).write_bytes(b"x")
    dataset = load_dataset(str(tmp_path))
    assert dataset.block(0, 9).labels.tolist() == [0, 1]
    assert dataset.classes == ("cat", "dog")
    assert dataset.notes == ("classes: 0 = cat, 1 = dog (2 folders)",)


def test_the_labels_of_folders_are_noted(tmp_path: Path) -> None:
    put(tmp_path, *(f"{number}/0.png" for number in (0, 2, 10)))
    dataset = load_dataset(str(tmp_path))
    assert dataset.notes == ("classes: 0 = 0, 2 = 2, 10 = 10 (3 folders)",)
    assert sorted(dataset.block(0, 3).labels.tolist()) == [0, 2, 10]
    assert dataset.classes is not None
    assert (len(dataset.classes), dataset.classes[10]) == (11, "10")
    assert dataset.served_classes() == ("0", "2", "10")


def test_what_is_left_out_is_noted(tmp_path: Path) -> None:
    put(tmp_path, "cat/0.png", "stray.png")
    (tmp_path / "ant").mkdir()
    (tmp_path / "cat" / "1.heic").write_bytes(b"x")
    notes = " ".join(load_dataset(str(tmp_path)).notes)
    assert "no images in ant" in notes
    assert "1 images beside the subfolders are left out" in notes
    assert "1 files are no images that are read (.heic)" in notes


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("train/cat/0.png", "val/cat/0.png"), "got images in .*train.*; give "),
        (("cat/0.png", "dog/more/0.png"), "one subfolder a class, got some in"),
        (("0.png",), "got 1 images without a subfolder"),
        (("1/0.png", "01/0.png"), "have the same number"),
    ],
)
def test_folders_of_another_shape(names: tuple[str, ...], expected: str, tmp_path: Path) -> None:
    put(tmp_path, *names)
    with pytest.raises(DataError, match=expected):
        load_dataset(str(tmp_path))
