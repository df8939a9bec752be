"""Images of samples in a page: data URIs of small files."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import torch
from torch import Tensor

_LARGEST = 64
"""Larger images are reduced to `_REDUCED` pixels and stored as JPEG, to keep the page small."""

_REDUCED = 96


@dataclass(frozen=True)
class EmbeddedImage:
    """An image in the page, with a caption and a description for readers who cannot see it."""

    uri: str
    caption: str
    alt: str


def embed_image(image: Tensor, caption: str, alt: str) -> EmbeddedImage:
    """Embed an image `(channels, height, width)` in [0, 1]; three channels at most are shown."""
    from PIL import Image

    shown = image[:3] if len(image) >= 3 else image[:1].expand(3, -1, -1)
    pixels = (shown.nan_to_num(0.0).clamp(0, 1) * 255.0).round().to(torch.uint8)
    bitmap = Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy(), "RGB")
    stream = io.BytesIO()
    if max(bitmap.size) > _LARGEST:
        kind = "jpeg"
        bitmap.thumbnail((_REDUCED, _REDUCED))
        bitmap.save(stream, kind, quality=85)
    else:
        kind = "png"
        bitmap.save(stream, kind, optimize=True)
    encoded = base64.b64encode(stream.getvalue()).decode("ascii")
    return EmbeddedImage(f"data:image/{kind};base64,{encoded}", caption, alt)


def embed_difference(adversarial: Tensor, clean: Tensor, alt: str) -> EmbeddedImage:
    """Embed the perturbation on grey, scaled so that its largest value is black or white."""
    change = (adversarial - clean).nan_to_num(0.0)
    largest = float(change.abs().max())
    factor = 0.5 / largest if largest > 0 else 1.0
    caption = f"difference × {factor:.3g}" if largest > 0 else "difference: none"
    return embed_image(0.5 + factor * change, caption, alt)
