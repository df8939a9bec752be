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
