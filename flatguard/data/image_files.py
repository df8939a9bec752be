"""Image files: which formats are read, how one is opened, and how it becomes a tensor.

A new image format goes into `SUFFIXES` and `FORMATS`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flatguard.data.dataset import LARGEST_IMAGE, Dataset
from flatguard.data.reading import reading
from flatguard.environment.requirements import needed
from flatguard.errors import DataError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
FORMATS = ("PNG", "JPEG", "BMP", "WEBP")
"""The formats that Pillow may read, whatever the file's name says. For some other formats, such as
PostScript, Pillow runs an external program."""


class ImageFiles(Dataset):
    """Images that are opened one by one.

    Args:
        files: in the order of the samples.
        labels: one for each file.
        preprocessing: one of RobustBench's names, or None.
        name: of the data set.
    """

    def __init__(
        self, files: list[Path], labels: list[int], preprocessing: str | None, name: str
    ) -> None:
        super().__init__(name, len(files))
        self._files, self._labels = files, labels
        self._transform = _transform(preprocessing)

    def _raw(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        images = [self._transform(_opened(file)) for file in self._files[start:stop]]
        shapes = {tuple(image.shape) for image in images}
        if len(shapes) > 1:
            raise DataError(
                f"{self.name}: images of different sizes, such as {sorted(shapes)[:2]}; "
                "name a --preprocessing that crops them"
            )
        return torch.stack(images), torch.tensor(self._labels[start:stop])


def _opened(file: Path) -> Any:
    """An image in RGB; an image with too many pixels is refused before it is decoded."""
    from PIL import Image

    with reading(file), Image.open(file, formats=FORMATS) as image:
        if 3 * image.width * image.height > LARGEST_IMAGE:
            raise DataError(f"{file}: {image.width} x {image.height} pixels are too many")
        return image.convert("RGB")


def check_preprocessing(preprocessing: str | None) -> None:
    """Refuse a name that RobustBench does not have."""
    _transform(preprocessing)


def _transform(preprocessing: str | None) -> Callable[[Any], Tensor]:
    if preprocessing is None:
        return lambda image: torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255.0
    with needed("robustbench", "robustbench", "--preprocessing"):
        from robustbench.data import PREPROCESSINGS

    if preprocessing not in PREPROCESSINGS:
        raise DataError(
            f"unknown preprocessing {preprocessing!r}; expected one of "
            f"{', '.join(str(p) for p in PREPROCESSINGS if p)}"
        )
    transform: Callable[[Any], Tensor] = PREPROCESSINGS[preprocessing]
    return transform
