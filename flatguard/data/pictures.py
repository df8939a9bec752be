"""Pictures: how one is opened, turned upright, and becomes a tensor as the eye sees it.

A new format goes into `SUFFIXES` and `FORMATS`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from flatguard.data.dataset import Dataset
from flatguard.data.picture_steps import PictureSteps, are_steps, parse_steps
from flatguard.data.reading import reading
from flatguard.data.values import LARGEST_IMAGE
from flatguard.environment.requirements import needed
from flatguard.errors import DataError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm", ".pgm", ".pbm", ".tif", ".tiff",
            ".gif")  # fmt: skip
FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "PPM", "TIFF", "GIF")
"""The formats that Pillow may read, whatever the file's name says. For some other formats, such as
PostScript, Pillow runs an external program."""

_SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N")
_WITH_ALPHA = ("LA", "La", "PA", "RGBA", "RGBa")

Transform = Callable[[Any], Tensor]


class PictureDataset(Dataset):
    """Images that come as pictures: they can be resized, and served with one channel."""

    _size: tuple[int, int] | None = None
    _transform: Transform | None = None
    _channels = 3

    def resized(self, size: tuple[int, int]) -> Dataset:
        """The same pictures, each resized to this height and width."""
        if self._transform is not None:
            raise DataError("--resize and --preprocessing both resize the pictures; give one")
        changed = copy.copy(self)
        changed._size, changed._shape = size, None
        return changed

    def preprocessed(self, preprocessing: str) -> Dataset | None:
        """The same pictures, each resized and cropped by steps or by one of RobustBench's names.

        None where the data set has a preprocessing already.
        """
        if self._transform is not None:
            return None
        changed = copy.copy(self)
        changed._transform, changed._shape = transform_of(preprocessing), None
        return changed

    def in_grey(self) -> Dataset | None:
        """The same pictures with one channel; a picture in colour is refused when it is read."""
        changed = copy.copy(self)
        changed._channels, changed._shape = 1, None
        return changed

    def _tensor_of(self, seen: Any, where: str) -> Tensor:
        """A picture of `as_seen` as it is served."""
        if self._transform is not None:
            return _planes(self._transform(in_rgb(seen)), self._channels, where)
        return to_tensor(_with_size(seen, self._size), self._channels, where)

    def _stacked(self, images: list[Tensor], start: int) -> Tensor:
        for number, image in enumerate(images):
            self._check_size(tuple(image.shape), start + number)
        return torch.stack(images)


def open_picture(file: Path) -> Any:
    """A decoded picture; one with too many pixels is refused before it is decoded.

    Raises:
        DataError: one line that names the file.
    """
    with reading(file, "is no picture"):
        if not file.stat().st_size:
            raise DataError(f"{file} is empty")
        with file.open("rb") as stream:
            return decoded(stream, str(file))


def decoded(stream: BinaryIO, where: str) -> Any:
    """A picture of an open file, decoded as a whole.

    Raises:
        DataError: too many pixels, or several pictures in one file.
    """
    from PIL import Image, ImageFile

    lenient = ImageFile.LOAD_TRUNCATED_IMAGES
    ImageFile.LOAD_TRUNCATED_IMAGES = False  # else the rest of a truncated picture is grey
    try:
        picture = Image.open(stream, formats=FORMATS)
        if 3 * picture.width * picture.height > LARGEST_IMAGE:
            raise DataError(f"{where}: {picture.width} x {picture.height} pixels are too many")
        frames = getattr(picture, "n_frames", 1)
        if frames > 1 and picture.format != "MPO":  # of phones
            raise DataError(
                f"{where}: expected one picture, got an animation or a file of {frames} pages; "
                "store the picture that the model shall see"
            )
        picture.load()
        return picture
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = lenient


def as_seen(picture: Any, where: str) -> Any:
    """A picture in a mode of one or three channels, upright, as a viewer shows it.

    16-bit grey becomes mode F with values from 0 to 1; all else has 8 bits.

    Raises:
        DataError: it has transparent pixels, or values whose range is unknown.
    """
    from PIL import Image, ImageOps

    scaled = picture.mode == "I" and picture.format in ("PNG", "PPM")  # 16 bits in older Pillows
    picture = ImageOps.exif_transpose(picture)
    if scaled or picture.mode in _SIXTEEN_BIT:
        return Image.fromarray(np.array(picture).astype(np.float32) / np.float32(65535))
    if picture.mode in ("I", "F"):
        raise DataError(
            f"{where}: the range of a picture in mode {picture.mode} is unknown; store it with 8 "
            "or 16 bits"
        )
    if picture.mode in _WITH_ALPHA or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        if picture.getchannel("A").getextrema()[0] < 255:
            raise DataError(
                f"{where} has transparent pixels; draw it on the background that the model was "
                "trained with"
            )
    return picture.convert("L" if picture.mode in ("1", "L") else "RGB")


def to_tensor(picture: Any, channels: int, where: str) -> Tensor:
    """A picture of `as_seen` as `(channels, height, width)` float32 in [0, 1].

    Raises:
        DataError: one channel is needed, and the picture is in colour.
    """
    values = torch.from_numpy(np.array(picture))
    values = values if picture.mode == "F" else values.float() / 255.0
    planes = values.unsqueeze(0) if values.ndim == 2 else values.permute(2, 0, 1)
    return _planes(planes, channels, where)


def _planes(planes: Tensor, channels: int, where: str) -> Tensor:
    """One or three channels as a data set serves them."""
    if channels == 3:
        return planes.expand(3, -1, -1)
    if not bool((planes == planes[:1]).all()):
        raise DataError(
            f"{where} is in colour, and the model takes images of one channel; convert the "
            "pictures to grey as the model's training did"
        )
    return planes[:1]


@dataclass(frozen=True)
class _Stepwise:
    """Steps as a transform; a class, because workers receive it."""

    steps: PictureSteps

    def __call__(self, picture: Any) -> Tensor:
        return to_tensor(self.steps(picture), 3, str(self.steps))


def check_preprocessing(preprocessing: str | None) -> None:
    """Refuse steps that are not understood, and a name that RobustBench does not have."""
    if preprocessing is not None:
        transform_of(preprocessing)


def transform_of(preprocessing: str) -> Transform:
    """A preprocessing by its steps or by RobustBench's name; it takes a picture in RGB.

    Raises:
        DataError: there is no such name, or a step is not understood.
    """
    if are_steps(preprocessing):
        return _Stepwise(parse_steps(preprocessing))
    with needed("robustbench", "robustbench", "--preprocessing"):
        from robustbench.data import PREPROCESSINGS

    if preprocessing not in PREPROCESSINGS:
        raise DataError(
            f"unknown preprocessing {preprocessing!r}; expected one of "
            f"{', '.join(str(p) for p in PREPROCESSINGS if p)}, or steps such as "
            "resize=256:bicubic,crop=224"
        )
    transform: Transform = PREPROCESSINGS[preprocessing]
    return transform


def in_rgb(picture: Any) -> Any:
    """A picture of `as_seen` in RGB with 8 bits."""
    from PIL import Image

    if picture.mode == "F":
        picture = Image.fromarray((np.array(picture) * 255.0).round().astype(np.uint8))
    return picture.convert("RGB")


def _with_size(picture: Any, size: tuple[int, int] | None) -> Any:
    from PIL import Image

    if size is None or (picture.height, picture.width) == size:
        return picture
    resized = picture.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    if resized.mode != "F":
        return resized
    return Image.fromarray(np.clip(np.array(resized), 0.0, 1.0))
