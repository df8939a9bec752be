"""The files of images: one tensor a file; recorded examples with their numbers and margins."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from flatguard.errors import RunFolderError
from flatguard.recording.mistakes import KeptMistakes
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


def save_mistakes(file: Path, kept: KeptMistakes) -> None:
    """Write examples that an attack passed through."""
    from safetensors.torch import save_file

    tensors = {
        "sample": kept.sample, "images": kept.images.float().contiguous(), "margin": kept.margin,
    }  # fmt: skip
    save_file(tensors, file)


def load_mistakes(file: Path) -> KeptMistakes:
    """Read a file of `save_mistakes`.

    Raises:
        RunFolderError: the file holds something else.
    """
    found = read_tensors(file)
    if set(found) != {"sample", "images", "margin"}:
        raise RunFolderError(f"{file} is damaged: expected sample, images and margin")
    kept = KeptMistakes(found["sample"], found["images"], found["margin"])
    types = (kept.sample.dtype, kept.images.dtype, kept.margin.dtype)
    count = len(kept.sample)
    fits = kept.sample.ndim == kept.margin.ndim == 1 and kept.images.ndim == 4
    if types != (torch.int64, torch.float32, torch.float64) or not fits:
        raise RunFolderError(f"{file} is damaged: expected numbers, images and margins")
    if not len(kept.images) == len(kept.margin) == count:
        raise RunFolderError(f"{file} is damaged: {count} numbers for {len(kept.images)} images")
    return kept
