"""Images of samples as they stand in a page: data URIs of small files."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import torch
from torch import Tensor

LARGEST = 64
"""Larger images are shrunk to `SHRUNK` pixels and stored with loss, to keep the page small."""

SHRUNK = 96


@dataclass(frozen=True)
class Picture:
    """An image in the page, with its caption and its words for those who do not see it."""

    uri: str
    caption: str
    alt: str


def picture(image: Tensor, caption: str, alt: str) -> Picture:
    """`(channels, height, width)` in [0, 1] as a picture; channels beyond three are left out."""
    from PIL import Image

    shown = image[:3] if len(image) >= 3 else image[:1].expand(3, -1, -1)
    pixels = (shown.nan_to_num(0.0).clamp(0, 1) * 255.0).round().to(torch.uint8)
    drawn = Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy(), "RGB")
    stream, kind = io.BytesIO(), "png"
    if max(drawn.size) > LARGEST:
        drawn.thumbnail((SHRUNK, SHRUNK))
        kind = "jpeg"
    drawn.save(stream, kind, **({"optimize": True} if kind == "png" else {"quality": 85}))
    coded = base64.b64encode(stream.getvalue()).decode("ascii")
    return Picture(f"data:image/{kind};base64,{coded}", caption, alt)


def difference(adversarial: Tensor, clean: Tensor, alt: str) -> Picture:
    """The perturbation around grey, magnified until its largest value is black or white."""
    change = (adversarial - clean).nan_to_num(0.0)
    largest = float(change.abs().max())
    factor = 0.5 / largest if largest > 0 else 1.0
    caption = f"difference × {factor:.3g}" if largest > 0 else "difference: none"
    return picture(0.5 + factor * change, caption, alt)
