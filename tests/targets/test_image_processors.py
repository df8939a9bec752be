"""transformers' image processors: each that is understood is proven, the others are refused."""

from typing import Any

import pytest

from flatguard.errors import ModelError
from flatguard.targets.image_processors import processor_inputs

transformers = pytest.importorskip(
    "transformers", reason="no transformers: pip install 'flatguard[transformers]'"
)
SMALL = {"shortest_edge": 48}
CROP = {"height": 40, "width": 40}


@pytest.mark.parametrize(
    ("kind", "settings", "steps"),
    [
        ("ViTImageProcessor", {"size": {"height": 40, "width": 56}}, "resize=40x56:bilinear"),
        ("CLIPImageProcessor", {"size": SMALL, "crop_size": CROP},
         "resize=48:bicubic,crop=40:floor"),
        ("ConvNextImageProcessor", {"size": SMALL, "crop_pct": 0.9},
         "resize=53:bicubic,crop=48:floor"),
        ("ConvNextImageProcessor", {"size": {"shortest_edge": 384}}, "resize=384x384:bicubic"),
        ("LevitImageProcessor", {"size": {"shortest_edge": 42}, "crop_size": CROP},
         "resize=48:bicubic,crop=40:floor"),
        ("DeiTImageProcessor", {"size": {"height": 48, "width": 48}, "crop_size": CROP},
         "resize=48x48:bicubic,crop=40:floor"),
        ("MobileNetV2ImageProcessor", {"size": SMALL, "crop_size": CROP},
         "resize=48:bilinear,crop=40:floor"),
        ("EfficientNetImageProcessor", {"size": {"height": 40, "width": 40}},
         "resize=40x40:bicubic"),
        ("ViTImageProcessor", {"do_resize": False}, ""),  # pictures stay as they are
    ],
)  # fmt: skip
def test_steps_are_proven(kind: str, settings: dict[str, Any], steps: str) -> None:
    processor = getattr(transformers, kind)(**settings)
    assert str(processor_inputs(processor, "model", 3).steps) == steps


def test_the_printed_numbers_and_other_scales() -> None:
    size = {"height": 32, "width": 32}
    usual = transformers.ViTImageProcessor(size=size, image_mean=[0.1, 0.2, 0.3])
    assert processor_inputs(usual, "model", 3).mean == (0.1, 0.2, 0.3)
    doubled = transformers.ViTImageProcessor(
        size=size, rescale_factor=1 / 127.5, image_std=[1.0] * 3
    )
    found = processor_inputs(doubled, "model", 3)
    assert found.mean == pytest.approx((0.25,) * 3)  # 2x - 0.5 is (x - 0.25) / 0.5
    assert found.std == pytest.approx((0.5,) * 3)
    plain = transformers.ViTImageProcessor(size=size, do_normalize=False, do_rescale=False)
    found = processor_inputs(plain, "model", 3)
    assert found.mean == (0.0,) * 3
    assert found.std == pytest.approx((1 / 255,) * 3)


def test_reversed_channels_and_one_channel() -> None:
    size = {"shortest_edge": 44}
    reversed_ = transformers.MobileViTImageProcessor(size=size, crop_size=CROP)
    assert processor_inputs(reversed_, "model", 3).is_reversed
    grey = transformers.ViTImageProcessor(
        size={"height": 28, "width": 28}, image_mean=[0.5], image_std=[0.25]
    )
    found = processor_inputs(grey, "model", 1)
    assert (found.mean, found.std) == ((0.5,), (0.25,))


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("DonutImageProcessor", "has do_pad, do_thumbnail"), ("ImageGPTImageProcessor", "has do_co"),
     ("Siglip2ImageProcessor", "no fixed size"), ("PerceiverImageProcessor", "pixels differ by")],
)  # fmt: skip
def test_what_is_no_resizing_is_refused_by_name(kind: str, expected: str) -> None:
    with pytest.raises(ModelError, match=expected) as caught:
        processor_inputs(getattr(transformers, kind)(), "model", 3)
    assert "\n" not in str(caught.value)
