"""Image files: only known formats of a bounded size are opened."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flatguard.data import load_dataset
from flatguard.data.pictures import SUFFIXES
from flatguard.errors import DataError

PIXELS = np.random.default_rng(0).integers(0, 256, (10, 8, 6, 3), dtype=np.uint8)


def folder_of(content: bytes, name: str = "a.png") -> str:
    Path("images/cat").mkdir(parents=True)
    Path("images/cat", name).write_bytes(content)
    return "images"


def test_images_of_different_sizes(tmp_path: Path) -> None:
    (tmp_path / "0").mkdir()
    Image.fromarray(PIXELS[0]).save(tmp_path / "0" / "a.png")
    Image.fromarray(PIXELS[0][:4]).save(tmp_path / "0" / "b.png")
    with pytest.raises(DataError, match="different sizes"):
        load_dataset(str(tmp_path)).block(0, 2)
    cropped = load_dataset(str(tmp_path), preprocessing="Res224").block(0, 2)
    assert cropped.images.shape == (2, 3, 224, 224)
    with pytest.raises(DataError, match="unknown preprocessing"):
        load_dataset(str(tmp_path), preprocessing="Crop7")


def test_a_picture_that_runs_a_program() -> None:
    """Pillow hands PostScript to Ghostscript, whatever the file's name is."""
    script = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 2 2\n%%EndComments\nshowpage\n%%EOF\n"
    with pytest.raises(DataError, match=r"a\.png is damaged"):
        load_dataset(folder_of(script)).block(0, 1)


def test_a_picture_of_more_pixels_than_memory() -> None:
    stream = io.BytesIO()
    Image.new("1", (9_000, 9_000)).save(stream, "PNG")
    assert len(stream.getvalue()) < 300_000
    with pytest.raises(DataError, match="9000 x 9000 pixels are too many"):
        load_dataset(folder_of(stream.getvalue())).block(0, 1)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_format_is_read_in_colour(suffix: str) -> None:
    stream = io.BytesIO()
    kind = {".jpg": "jpeg", ".pgm": "ppm", ".pbm": "ppm", ".tif": "tiff"}.get(suffix, suffix[1:])
    Image.new("L", (6, 4), 200).save(stream, kind)
    images = load_dataset(folder_of(stream.getvalue(), f"a{suffix}")).block(0, 1).images
    assert images.shape == (1, 3, 4, 6)
    assert (images * 255).round().unique().tolist() == [200]
