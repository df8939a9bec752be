"""The values of images and labels: the layouts, types and ranges that are read; others are refused.

Images become float32 NCHW in [0, 1], labels int64.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from flatguard.errors import DataError

LARGEST_IMAGE = 1 << 26
"""Values of one image: 4,700 x 4,700 pixels in colour."""

ROUNDING = 1e-5
"""A value this far outside of [0, 1] is a rounding error, and is clamped."""

_OVERSHOOT = 0.25
"""Cubic interpolation leaves [0, 1] by less than this."""

_USUAL_CHANNELS = (1, 3, 4)


def check_shape(shape: tuple[int, ...], name: str) -> None:
    """Refuse images with too many values, or with none."""
    if math.prod(shape) > LARGEST_IMAGE:
        raise DataError(f"{name}: images of {shape} are too large")
    if 0 in shape:
        raise DataError(f"{name}: images of {shape} have no pixels")


def as_images(raw: Tensor, name: str, channels_first: bool = False) -> Tensor:
    """Images of any accepted layout and type as float32 NCHW; their range is not checked yet.

    The channels are the side of 1, 3 or 4 values. Where both ends of the shape fit, or neither,
    the square sides are height and width; where that does not decide, the images are refused.

    Args:
        raw: the images.
        name: of the data set.
        channels_first: it is known that the channels come first.

    Raises:
        DataError: another type or number of dimensions, or a layout that is not clear.
    """
    if raw.dtype == torch.uint8:
        images = raw.float() / 255.0
    elif raw.is_floating_point():
        images = raw.float()
    else:
        raise DataError(
            f"{name}: expected uint8 or floating-point images, got {raw.dtype}; convert values "
            "from 0 to 255 to uint8, and divide others by their largest possible value"
        )
    if images.ndim == 3:  # the channel dimension is missing
        images = images.unsqueeze(1)
    if images.ndim != 4:
        raise DataError(
            f"{name}: expected images (n, channels, height, width) or "
            f"(n, height, width, channels), got {tuple(raw.shape)}"
        )
    if not channels_first and _channels_are_last(tuple(images.shape[1:]), name):
        images = images.permute(0, 3, 1, 2)
    # Attacks need NCHW-contiguous inputs: AutoAttack calls .view on the gradient.
    return images.contiguous()


def _channels_are_last(shape: tuple[int, ...], name: str) -> bool:
    first, middle, last = shape
    usual_first, usual_last = first in _USUAL_CHANNELS, last in _USUAL_CHANNELS
    if usual_first != usual_last:
        return usual_last
    square_if_first, square_if_last = middle == last, first == middle
    if square_if_first != square_if_last:
        return square_if_last
    if square_if_first or not usual_first:
        return not square_if_first and last < min(first, middle)
    raise DataError(
        f"{name}: images of shape {shape} may have their channels first or last; give images whose "
        "other sides are equal, or with 1, 3 or 4 channels at one end only"
    )


def in_box(images: Tensor, name: str, start: int) -> Tensor:
    """New images in [0, 1]: rounding errors are clamped, and anything else is refused.

    Raises:
        DataError: with the first sample that is outside or not finite, and what to do.
    """
    if images.numel():
        lowest, highest = images.aminmax()  # both are NaN where a value is
        if bool(lowest >= 0) and bool(highest <= 1):
            return images.clone()  # the caller's array may lie below
    finite = torch.isfinite(images).flatten(1).all(dim=1)
    if not bool(finite.all()):
        where = int((~finite).nonzero()[0])
        kind = "nan" if bool(images[where].isnan().any()) else "an infinite value"
        raise DataError(
            f"{name}: {kind} in sample {start + where}; expected images whose values are all "
            "finite: repair that sample, or leave it out"
        )
    inside = ((images >= -ROUNDING) & (images <= 1 + ROUNDING)).flatten(1).all(dim=1)
    if not bool(inside.all()):
        where = int((~inside).nonzero()[0])
        low, high = images[where].min().item(), images[where].max().item()
        raise DataError(
            f"{name}: expected images in [0, 1] (or uint8), got values from {low:.4g} to "
            f"{high:.4g} in sample {start + where}; {_range_advice(images)}"
        )
    images = images.clone()
    images[images < 0] = 0.0
    images[images > 1] = 1.0
    return images


def _range_advice(images: Tensor) -> str:
    low, high = images.min().item(), images.max().item()
    if low >= -ROUNDING and high > 2:
        scale = 255 if high <= 256 else 65535
        return f"divide by {scale}" + (", or store uint8" if scale == 255 else "")
    if -1 - ROUNDING <= low < -0.5 and high <= 1 + ROUNDING:
        return "for images in [-1, 1]: give (images + 1) / 2, and --mean .5 --std .5 to the model"
    if low >= -_OVERSHOOT and high <= 1 + _OVERSHOOT:
        return "interpolation and filters overshoot: clip the images to [0, 1]"
    return "undo the normalisation in the data and give --mean and --std to the model"


def as_labels(raw: Tensor, name: str, start: int) -> Tensor:
    """Labels as int64: whole numbers of any type, in a column, or one-hot.

    Raises:
        DataError: with the first sample whose label is something else.
    """
    if raw.is_complex():
        raise DataError(f"{name}: expected integer labels, got {raw.dtype}")
    if raw.ndim == 2 and raw.shape[1] > 1:
        return _of_one_hot(raw, name, start)
    if raw.dtype == torch.bool:
        raise DataError(f"{name}: expected integer labels, got {raw.dtype}; give 0 and 1")
    flat = raw.reshape(len(raw), -1).squeeze(1) if raw.ndim > 1 else raw
    if flat.ndim != 1:
        raise DataError(f"{name}: expected one label an image, got labels of {tuple(raw.shape)}")
    if flat.is_floating_point():
        odd = ~torch.isfinite(flat) | (flat != flat.round())
        if bool(odd.any()):
            where = int(odd.nonzero()[0])
            raise DataError(
                f"{name}: expected integer labels, got {flat[where].item()} for sample "
                f"{start + where}"
            )
    return flat.long()


def _of_one_hot(raw: Tensor, name: str, start: int) -> Tensor:
    ones, zeros = (raw == 1).sum(dim=1), (raw == 0).sum(dim=1)
    odd = (ones != 1) | (zeros != raw.shape[1] - 1)
    if bool(odd.any()):
        where = int(odd.nonzero()[0])
        raise DataError(
            f"{name}: expected one label an image, got labels of {tuple(raw.shape)}, and that of "
            f"sample {start + where} is not one-hot; give the number of one class for each image"
        )
    return raw.float().argmax(dim=1)
