import base64
import io

import numpy as np
import torch
from PIL import Image

from flatguard.reporting.images import EmbeddedImage, embed_difference, embed_image


def decoded(image: EmbeddedImage) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(image.uri.split(",")[1])))


def test_a_small_image_keeps_every_pixel() -> None:
    pixels = torch.randint(0, 256, (3, 8, 9), generator=torch.Generator().manual_seed(0))
    found = embed_image(pixels / 255, "clean", "sample 1")
    assert found.uri.startswith("data:image/png;base64,")
    assert np.array_equal(np.asarray(decoded(found)), pixels.permute(1, 2, 0).numpy())


def test_a_large_image_is_reduced() -> None:
    found = embed_image(torch.full((1, 200, 300), torch.nan), "clean", "sample 1")
    assert found.uri.startswith("data:image/jpeg;base64,")
    assert decoded(found).size == (96, 64)


def test_a_difference_is_magnified_around_grey() -> None:
    clean = torch.zeros(1, 1, 3)
    found = embed_difference(torch.tensor([[[0.1, -0.05, 0.0]]]), clean, "change")
    assert found.caption == "difference × 5"
    assert np.asarray(decoded(found))[0, :, 0].tolist() == [255, 64, 128]
    assert embed_difference(clean, clean, "change").caption == "difference: none"
