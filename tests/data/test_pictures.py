"""Pictures of every kind are read as the eye sees them, or refused by name."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile

from flatguard.data import arranged, load_dataset
from flatguard.errors import DataError

PIXELS = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
GREY = np.random.default_rng(1).integers(0, 256, (4, 6), dtype=np.uint8)


def rotated(file: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned by 90 degrees
    Image.fromarray(np.rot90(PIXELS, 1).copy()).save(file, exif=exif)


def palette(file: Path) -> None:
    Image.fromarray(np.repeat(GREY[:, :, None], 3, 2)).quantize(256).save(file)


def opaque(file: Path) -> None:
    Image.fromarray(np.dstack([PIXELS, np.full((4, 6), 255, np.uint8)])).save(file)


def sixteen(file: Path) -> None:
    Image.fromarray(GREY.astype(np.uint16) * 257).save(file)


IN_COLOUR = torch.tensor(PIXELS).permute(2, 0, 1).float() / 255
IN_GREY = (torch.tensor(GREY).float() / 255).expand(3, -1, -1)

SEEN: dict[str, tuple[Callable[[Path], None], torch.Tensor]] = {
    "upright": (rotated, IN_COLOUR),
    "a palette": (palette, IN_GREY),
    "opaque alpha": (opaque, IN_COLOUR),
    "16 bits": (sixteen, IN_GREY),
    "grey": (lambda file: Image.fromarray(GREY).save(file), IN_GREY),
    "grey with alpha": (
        lambda file: Image.merge("LA", [Image.fromarray(GREY), Image.new("L", (6, 4), 255)])
        .save(file), IN_GREY),
    "black and white": (
        lambda file: Image.fromarray(GREY > 127).save(file),
        torch.tensor(GREY > 127).float().expand(3, -1, -1)),
}  # fmt: skip


def only(file: Path, name: str = "a.png") -> Path:
    folder = file / "cat"
    folder.mkdir(exist_ok=True)
    return folder / name


@pytest.mark.parametrize("kind", SEEN)
def test_what_the_eye_sees(kind: str, tmp_path: Path) -> None:
    write, expected = SEEN[kind]
    write(only(tmp_path))
    images = load_dataset(str(tmp_path)).block(0, 1).images[0]
    assert torch.allclose(images, expected, atol=1e-6)


def test_cmyk(tmp_path: Path) -> None:
    Image.new("CMYK", (6, 4), (0, 255, 255, 0)).save(only(tmp_path, "a.jpg"))
    red = load_dataset(str(tmp_path)).block(0, 1).images[0].mean((1, 2))
    assert torch.allclose(red, torch.tensor([1.0, 0.0, 0.0]), atol=0.02)


TIFFS: dict[str, tuple[Callable[[Path], object], torch.Tensor]] = {
    "colour": (lambda f: Image.fromarray(PIXELS).save(f, "TIFF"), IN_COLOUR),
    "packed": (
        lambda f: Image.fromarray(PIXELS).save(f, "TIFF", compression="tiff_lzw"), IN_COLOUR,
    ),
    "16 bits": (
        lambda f: Image.fromarray(GREY.astype(np.uint16) * 257).save(f, "TIFF"), IN_GREY,
    ),
    "one frame of a GIF": (lambda f: Image.fromarray(GREY).save(f, "GIF"), IN_GREY),
}  # fmt: skip


@pytest.mark.parametrize("name", ["a.tif", "a.TIFF", "a.gif"])
@pytest.mark.parametrize("kind", TIFFS)
def test_tiff_and_gif(kind: str, name: str, tmp_path: Path) -> None:
    """The content decides how a file is read, and not its name."""
    write, expected = TIFFS[kind]
    write(only(tmp_path, name))
    images = load_dataset(str(tmp_path)).block(0, 1).images[0]
    assert torch.allclose(images, expected, atol=1e-4)


def transparent(file: Path) -> None:
    Image.fromarray(np.dstack([PIXELS, GREY])).save(file)


def palette_with_a_hole(file: Path) -> None:
    Image.fromarray(PIXELS).quantize(8).save(file, transparency=0)


def truncated(file: Path) -> None:
    Image.fromarray(np.random.default_rng(2).integers(0, 256, (64, 64, 3), np.uint8)).save(file)
    file.write_bytes(file.read_bytes()[:4000])


def animated(file: Path) -> None:
    frames = [Image.new("RGB", (6, 4), colour) for colour in ("red", "blue")]
    frames[0].save(file, save_all=True, append_images=frames[1:])


def pages(file: Path) -> None:
    frames = [Image.new("RGB", (6, 4), colour) for colour in ("red", "blue", "green")]
    frames[0].save(file, "TIFF", save_all=True, append_images=frames[1:])


def moving(file: Path) -> None:
    frames = [Image.new("RGB", (6, 4), colour) for colour in ("red", "blue")]
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])


def of_physics(file: Path) -> None:
    Image.fromarray(np.linspace(0, 9, 24, dtype=np.float32).reshape(4, 6)).save(file, "TIFF")


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "transparent": (transparent, "transparent pixels; draw it on the background"),
    "a transparent palette": (palette_with_a_hole, "transparent pixels"),
    "truncated": (truncated, "is damaged, or is no picture"),
    "empty": (lambda file: file.write_bytes(b""), "is empty"),
    "text": (lambda file: file.write_text("no picture"), "is damaged, or is no picture"),
    "an animation": (animated, "an animation"),
    "a TIFF of several pages": (pages, "one picture, got an animation or a file of 3 pages"),
    "an animated GIF": (moving, "got an animation or a file of 2 pages"),
    "a TIFF of floats": (of_physics, "the range of a picture in mode F is unknown"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_refused(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)  # as some notebooks do
    write, expected = REFUSED[kind]
    write(only(tmp_path))
    with pytest.raises(DataError, match=rf"a\.png.*{expected}"):
        load_dataset(str(tmp_path)).block(0, 1)
    assert ImageFile.LOAD_TRUNCATED_IMAGES


def test_sizes_that_differ_between_blocks(tmp_path: Path) -> None:
    for name, width in (("a.png", 6), ("b.png", 7)):
        Image.new("RGB", (width, 4)).save(only(tmp_path, name))
    dataset = load_dataset(str(tmp_path))
    dataset.block(0, 1)
    with pytest.raises(
        DataError, match=r"sample 1 has 3 x 4 x 7, an earlier one 3 x 4 x 6.*resize"
    ):
        dataset.block(1, 2)


@pytest.mark.parametrize("write", [sixteen, rotated])
def test_resizing(write: Callable[[Path], None], tmp_path: Path) -> None:
    write(only(tmp_path))
    images = arranged(load_dataset(str(tmp_path)), (8, 3), None).block(0, 1).images
    assert images.shape == (1, 3, 8, 3)
    preprocessed = load_dataset(str(tmp_path), preprocessing="Res224")
    assert preprocessed.block(0, 1).images.shape == (1, 3, 224, 224)
    with pytest.raises(DataError, match="--resize and --preprocessing"):
        arranged(preprocessed, (8, 3), None)


def test_one_channel(tmp_path: Path) -> None:
    sixteen(only(tmp_path))
    grey = load_dataset(str(tmp_path)).in_grey()
    assert grey is not None
    assert torch.allclose(grey.block(0, 1).images[0], IN_GREY[:1])
    Image.fromarray(PIXELS).save(only(tmp_path, "b.png"))
    mixed = load_dataset(str(tmp_path)).in_grey()
    assert mixed is not None
    with pytest.raises(DataError, match=r"b\.png is in colour, and the model takes images of one"):
        mixed.block(1, 2)
