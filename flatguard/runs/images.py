"""The files of images: one tensor a file."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from flatguard.errors import RunFolderError
from flatguard.runs.untrusted import read_tensors


def as_bytes(images: Tensor) -> Tensor:
    """The images as uint8 if that is exact, as for images from 8-bit files; else as float32."""
    pixels = (images * 255.0).round().to(torch.uint8)
    return pixels if torch.equal(pixels.float() / 255.0, images) else images.float()


def as_floats(images: Tensor) -> Tensor:
    """The images in [0, 1], as the data set served them."""
    return images.float() / 255.0 if images.dtype == torch.uint8 else images


def save_images(file: Path, images: Tensor) -> None:
    """Write a tensor `(n, channels, height, width)`; its name is the file's stem."""
    from safetensors.torch import save_file

    save_file({file.stem: images.cpu().contiguous()}, file)


def load_images(file: Path) -> Tensor:
    """Read a file of `save_images`.

    Raises:
        RunFolderError: the file holds something else.
    """
    images = read_tensors(file).get(file.stem)
    if images is None or images.ndim != 4 or images.dtype not in (torch.uint8, torch.float32):
        raise RunFolderError(f"{file} is damaged: expected images in uint8 or float32")
    return images
