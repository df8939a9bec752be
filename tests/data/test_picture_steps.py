"""Steps of pictures: what they do, and that they are torchvision's where it has them."""

import numpy as np
import pytest
import torch
from PIL import Image

from flatguard.data import load_dataset
from flatguard.data.picture_steps import parse_steps
from flatguard.data.pictures import to_tensor
from flatguard.errors import DataError

SIZES = [(40, 61), (61, 40), (20, 20), (33, 57)]


def picture(height: int, width: int) -> Image.Image:
    generator = np.random.default_rng(height * width)
    return Image.fromarray(generator.integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("filter_", ["nearest", "bilinear", "bicubic", "lanczos", "box"])
def test_a_shorter_side_and_a_crop_are_torchvisions(size: tuple[int, int], filter_: str) -> None:
    transforms = pytest.importorskip("torchvision.transforms")
    theirs = transforms.Compose([
        transforms.Resize(32, transforms.InterpolationMode(filter_)), transforms.CenterCrop(27),
        transforms.ToTensor(),
    ])  # fmt: skip
    steps = parse_steps(f"resize=32:{filter_},crop=27")
    assert torch.equal(to_tensor(steps(picture(*size)), 3, ""), theirs(picture(*size)))


@pytest.mark.parametrize("size", SIZES)
def test_both_sides_and_a_crop_that_is_larger_are_torchvisions(size: tuple[int, int]) -> None:
    transforms = pytest.importorskip("torchvision.transforms")
    theirs = transforms.Compose([
        transforms.Resize((24, 31)), transforms.CenterCrop((35, 30)), transforms.ToTensor()
    ])  # fmt: skip
    steps = parse_steps("resize=24x31,crop=35x30")
    assert torch.equal(to_tensor(steps(picture(*size)), 3, ""), theirs(picture(*size)))


@pytest.mark.parametrize(
    ("text", "size"),
    [("cover=20x30", (23, 30)), ("fit=20x30", (20, 26)), ("resize=20", (20, 26)),
     ("resize=20x30", (20, 30)), ("resize=64,crop=48x16", (48, 16))],
)  # fmt: skip
def test_sizes(text: str, size: tuple[int, int]) -> None:
    made = parse_steps(text)(picture(46, 60))
    assert (made.height, made.width) == size


def test_the_smaller_margin_and_the_colour_around() -> None:
    pixels = np.arange(5, dtype=np.uint8)[None, :].repeat(2, 0)
    grey = Image.fromarray(pixels)
    assert np.asarray(parse_steps("crop=2x2:floor")(grey)).tolist() == [[1, 2]] * 2
    assert np.asarray(parse_steps("crop=2x2")(grey)).tolist() == [[2, 3]] * 2
    around = np.asarray(parse_steps("crop=4x5:9/8/7")(grey))
    assert around[0].tolist() == [[9, 8, 7]] * 5
    assert around[1, :, 0].tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    "text",
    ["resize=256:bicubic,crop=224:floor", "cover=224x256:bilinear,crop=224x256",
     "fit=224x224:lanczos,crop=224:124/116/104:floor"],
)  # fmt: skip
def test_the_text_is_read_back(text: str) -> None:
    assert str(parse_steps(text)) == text


@pytest.mark.parametrize(
    "text",
    ["resize=", "resize=0", "resize=12:cubic", "crop=12:bicubic", "crop=4:1/2", "crop=4:1/2/999",
     "rotate=90", "resize=99999", "resize=3,", "=3", "resize=3x4x5"],
)  # fmt: skip
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(DataError, match="preprocessing") as caught:
        parse_steps(text)
    assert "\n" not in str(caught.value)


def test_a_folder_by_steps(tmp_path) -> None:
    (tmp_path / "cat").mkdir()
    picture(40, 61).save(tmp_path / "cat" / "0.png")
    picture(61, 40).save(tmp_path / "cat" / "1.png")
    images = load_dataset(str(tmp_path), preprocessing="resize=16:bicubic,crop=12").block(0, 2)
    assert images.images.shape == (2, 3, 12, 12)
    with pytest.raises(DataError, match="expected steps"):
        load_dataset(str(tmp_path), preprocessing="resize=16:fine")
