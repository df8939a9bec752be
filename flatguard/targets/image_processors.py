"""transformers' image processors as steps of a picture and a normalisation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from flatguard.data.picture_steps import Crop, Filter, PictureSteps, Resize, Step
from flatguard.errors import ModelError
from flatguard.targets.own_inputs import OwnInputs, own_inputs
from flatguard.targets.shards import listed

_KNOWN = {"do_resize", "do_center_crop", "do_rescale", "do_normalize", "do_convert_rgb",
          "do_flip_channel_order"}  # fmt: skip
"""Switches of a processor that are understood."""
_CONVNEXT_SQUASHES = 384
_LEVIT = 256 / 224


def processor_inputs(processor: Any, name: str, channels: int) -> OwnInputs:
    """The steps and the normalisation of an image processor, proven on pictures.

    Args:
        processor: of transformers.
        name: of the model, for messages.
        channels: that the model takes.

    Raises:
        ModelError: names what the processor does beside resizing, cropping and normalising.
    """
    if channels not in (1, 3):
        raise ModelError(f"{name}: expected a model of 1 or 3 channels, got {channels}")

    def process(picture: Any) -> Tensor:
        found = processor(images=picture, return_tensors="pt")
        others = [key for key in found if key != "pixel_values"]
        if others:
            raise ModelError(f"{what} also gives {listed(others)}, which the model needs")
        pixels = found["pixel_values"]
        if pixels.ndim != 4:
            raise ModelError(f"{what} gives {pixels.ndim} dimensions: expected one image a picture")
        values: Tensor = pixels[0]
        return values

    what = f"{name}: its {type(processor).__name__}"
    switches = sorted(key for key in vars(processor) if key.startswith("do_"))
    unknown = [key for key in switches if getattr(processor, key) and key not in _KNOWN]
    if unknown:
        raise ModelError(
            f"{what} has {listed(unknown)}, which cannot be turned into resizing, cropping and a "
            "normalisation; wrap the model in one of your own, --arch"
        )
    printed = [_numbers(processor, key, channels) for key in ("image_mean", "image_std")]
    try:
        return own_inputs(process, list(_candidates(processor, what)), name, channels, printed)
    except ModelError:
        raise
    except Exception as error:  # a processor may raise anything
        raise ModelError(f"{what} cannot be used: {type(error).__name__}: {error}") from error


def _numbers(processor: Any, key: str, channels: int) -> tuple[float, ...]:
    given = getattr(processor, key, None)
    if isinstance(given, (int, float)):
        return (float(given),) * channels
    return tuple(float(each) for each in given or ())


def _candidates(processor: Any, what: str) -> Iterator[PictureSteps]:
    """The steps that the settings of a processor may mean, the usual meaning first."""
    crop = _crop(processor)
    if not getattr(processor, "do_resize", False):
        yield PictureSteps(crop)
        return
    size, filter_ = _sides(getattr(processor, "size", None)), _filter(processor, what)
    short, height, width = (size.get(k) for k in ("shortest_edge", "height", "width"))
    more = sorted(set(size) - {"shortest_edge", "height", "width"})
    if more or (short is None and (height is None or width is None)):
        raise ModelError(
            f"{what} resizes by {listed(list(size)) or 'no sides'}: the result has no fixed size"
        )
    if short is None:
        assert height is not None
        yield PictureSteps((Resize("resize", height, width, filter_), *crop))
    else:
        yield PictureSteps((Resize("resize", short, None, filter_), *crop))
        yield PictureSteps((Resize("resize", int(_LEVIT * short), None, filter_), *crop))
        yield from _by_share(processor, short, filter_)
    if crop:
        yield from _by_share(processor, _as_crop(crop).height, filter_)


def _by_share(processor: Any, side: int, filter_: Filter) -> Iterator[PictureSteps]:
    """`crop_pct`: the picture is resized to side / crop_pct, and the middle is taken."""
    share = getattr(processor, "crop_pct", None)
    if not share:
        return
    crop = Crop(side, side, floor=True)
    if side >= _CONVNEXT_SQUASHES:
        yield PictureSteps((Resize("resize", side, side, filter_),))
    yield PictureSteps((Resize("resize", int(side / share), None, filter_), crop))


def _as_crop(steps: tuple[Step, ...]) -> Crop:
    (crop,) = steps
    assert isinstance(crop, Crop)
    return crop


def _crop(processor: Any) -> tuple[Step, ...]:
    if not getattr(processor, "do_center_crop", False):
        return ()
    size = _sides(getattr(processor, "crop_size", None) or getattr(processor, "size", None))
    height = size.get("height", size.get("shortest_edge"))
    width = size.get("width", height)
    if height is None or width is None:
        return ()
    return (Crop(height, width, floor=True),)


def _sides(size: Any) -> dict[str, int]:
    """The sides of a size, without those that are not given."""
    if isinstance(size, int):
        return {"height": size, "width": size}
    if size is None:
        return {}
    items = size.items() if hasattr(size, "items") else vars(size).items()
    return {str(key): int(value) for key, value in items if value is not None}


def _filter(processor: Any, what: str) -> Filter:
    """The filter by the number that Pillow gives it."""
    from PIL import Image

    number = getattr(processor, "resample", None)
    number = Image.Resampling.BILINEAR if number is None else number
    name = Image.Resampling(int(number)).name.lower()
    names: dict[str, Filter] = {
        "nearest": "nearest", "bilinear": "bilinear", "bicubic": "bicubic", "lanczos": "lanczos",
        "box": "box", "hamming": "hamming",
    }  # fmt: skip
    if name not in names:
        raise ModelError(f"{what} has an unknown filter, {number}")
    return names[name]
