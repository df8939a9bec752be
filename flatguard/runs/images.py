"""Images on disk: one tensor a file."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor


def as_bytes(images: Tensor) -> Tensor:
    """As uint8 where that loses nothing, as for images that came from 8-bit files."""
    pixels = (images * 255.0).round().to(torch.uint8)
    return pixels if torch.equal(pixels.float() / 255.0, images) else images.float()


def as_floats(images: Tensor) -> Tensor:
    """In [0, 1], as the data set served them."""
    return images.float() / 255.0 if images.dtype == torch.uint8 else images


def save_images(file: Path, images: Tensor) -> None:
    """Write `(n, channels, height, width)`, under the file's own name."""
    from safetensors.torch import save_file

    save_file({file.stem: images.cpu().contiguous()}, file)


def load_images(file: Path) -> Tensor:
    """What `save_images` wrote."""
    from safetensors.torch import load_file

    images: Tensor = load_file(file)[file.stem]
    return images
