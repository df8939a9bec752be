"""A CSV of paths and labels, as people write them; a wrong row is named."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from flatguard.data import load_dataset
from flatguard.errors import DataError

PIXELS = np.random.default_rng(0).integers(0, 256, (3, 4, 6, 3), dtype=np.uint8)


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    (tmp_path / "im, g").mkdir()
    for index, pixels in enumerate(PIXELS):
        Image.fromarray(pixels).save(tmp_path / "im, g" / f"{index}.png")
    return tmp_path / "list.csv"


@pytest.mark.parametrize(
    ("text", "labels", "classes"),
    [
        ('path,label\n"im, g/0.png",2\n"im, g/1.png",0\n"im, g/2.png",1\n', [2, 0, 1], None),
        ('"im, g/0.png",2\n"im, g/1.png",0\n"im, g/2.png",1\n', [2, 0, 1], None),
        ('2,"im, g/0.png"\r\n0,"im, g/1.png"\r\n\r\n1,"im, g/2.png"', [2, 0, 1], None),
        ("im, g/0.png\t2\nim, g/1.png\t0\nim, g/2.png\t1\n", [2, 0, 1], None),
        ("\ufefflabel;path\n2.0;im, g/0.png\n0.0;im, g/1.png\n1.0;im, g\\2.png\n", [2, 0, 1], None),
        ("id\tfilename\tclass\n7\tim, g/0.png\tdog\n8\tim, g/1.png\tcat\n9\tim, g/2.png\tdog\n",
         [1, 0, 1], ("cat", "dog")),
    ],
)  # fmt: skip
def test_lists(text: str, labels: list[int], classes: tuple[str, ...] | None, listed: Path) -> None:
    listed.write_text(text, encoding="utf-8")
    dataset = load_dataset(str(listed))
    batch = dataset.block(0, 3)
    assert batch.labels.tolist() == labels
    assert torch.equal(batch.images, torch.tensor(PIXELS).permute(0, 3, 1, 2).float() / 255)
    assert dataset.classes == classes
    assert dataset.notes == (("classes: 0 = cat, 1 = dog (2 names)",) if classes else ())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("path,label\nim/9.png,1\n", r"row 2: no file .*im/9\.png"),
        ('path,label\n"im, g/0.png",1\n"im, g/1.png",cat\n', "row 3: expected labels that are all"),
        ('path,label\n"im, g/0.png",\n', "row 2: the label is missing"),
        ("path,label\nim, g/0.png,1\n", "row 2: expected 2 columns, got 3; write a path with a"),
        ('path,fine\n"im, g/0.png",1\n', "expected columns named path and label, got path, fine"),
        ('path,label,class\n"im, g/0.png",1,2\n', "one column of labels, got label, class"),
        ('"im, g/0.png",1,2\n', "expected two columns"),
        ("a,b\nc,d\n", "expected two columns"),
        ("", "holds no images"),
        ("path,label\n", "holds no images"),
    ],
)
def test_wrong_lists(text: str, expected: str, listed: Path) -> None:
    listed.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=expected):
        load_dataset(str(listed))


def test_a_list_that_is_no_text(listed: Path) -> None:
    listed.write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(DataError, match=r"list\.csv is damaged, or is no list of images"):
        load_dataset(str(listed))
