"""What a published model does to a picture before its first layer, as steps and a normalisation.

Libraries describe it in their own words. The description gives the steps. Mean, std and the order
of the channels are measured on pictures of one colour. Then both are proven: pictures of several
sizes must give what the library's own function gives.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from flatguard.data.picture_steps import PictureSteps
from flatguard.data.pictures import to_tensor
from flatguard.errors import ModelError
from flatguard.targets.normalized import Normalized
from flatguard.targets.target import Defaults

Process = Callable[[Any], Tensor]
"""The library's own preprocessing: a picture of Pillow to `(channels, height, width)`."""

_TOLERANCE = 3.5 / 255
"""Largest difference of a pixel in [0, 1]: Pillow and torchvision round differently."""
_AGREES, _DIGITS = 1e-5, 7
_SIDE = 224


class ReversedChannels(nn.Module):
    """A model of images in BGR that takes images in RGB."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """The model's output for images in RGB."""
        output: Tensor = self.model(images.flip(1))
        return output


@dataclass(frozen=True)
class OwnInputs:
    """A model's own preprocessing.

    Attributes:
        steps: of the picture; none if it is taken as it is.
        mean: per channel, subtracted from images in [0, 1].
        std: per channel, the divisor after that.
        is_reversed: whether the model takes BGR.
    """

    steps: PictureSteps
    mean: tuple[float, ...]
    std: tuple[float, ...]
    is_reversed: bool = False

    def around(self, model: nn.Module) -> nn.Module:
        """The model with its normalisation in front: it takes images in [0, 1]."""
        inner = ReversedChannels(model) if self.is_reversed else model
        return Normalized(inner, self.mean, self.std).eval()

    def defaults(self, dataset: str | None = None) -> Defaults:
        """The settings of a model that has a preprocessing and no radius of its own."""
        return Defaults(dataset, "Linf", None, str(self.steps) or None, self.steps.size)


def own_inputs(
    process: Process,
    candidates: Sequence[PictureSteps],
    name: str,
    channels: int = 3,
    printed: Sequence[Sequence[float]] = (),
) -> OwnInputs:
    """The steps and the normalisation that do what the library's own function does.

    Args:
        process: the library's function.
        candidates: steps that its description may mean; the first that is proven is taken.
        name: of the model, for messages.
        channels: of the pictures, 1 or 3.
        printed: mean and std as the description prints them, taken where the measured ones agree.

    Raises:
        ModelError: the function does something else, and how far it is off.
    """
    found = _Normalisation.measured(process, name, channels).as_printed(printed)
    smallest = float("inf")
    for steps in candidates:
        inputs = OwnInputs(steps, found.mean, found.std, found.is_reversed)
        smallest = min(smallest, off := _mismatch(process, inputs, channels))
        if off <= _TOLERANCE:
            return inputs
    raise ModelError(
        f"{name}: its own preprocessing is not {' or '.join(str(c) or 'none' for c in candidates)}"
        f": pixels differ by {255 * smallest:.0f} of 255; serve prepared images as tensors with "
        "a model of your own, --arch"
    )


@dataclass(frozen=True)
class _Normalisation:
    mean: tuple[float, ...]
    std: tuple[float, ...]
    is_reversed: bool

    @classmethod
    def measured(cls, process: Process, name: str, channels: int) -> _Normalisation:
        """From pictures of one colour: black, and each channel at its brightest."""
        black = _middle(process(_plain(channels, None)))
        columns = [_middle(process(_plain(channels, at))) - black for at in range(channels)]
        matrix = torch.stack(columns, dim=1)
        if matrix.shape != (channels, channels):
            raise ModelError(f"{name}: expected {channels} channels, got {len(matrix)}")
        is_reversed = channels > 1 and float(matrix[0, 0].abs()) < _AGREES
        matrix, black = (matrix.flip(0), black.flip(0)) if is_reversed else (matrix, black)
        slopes = matrix.diagonal()
        if bool((slopes <= 0).any()) or float((matrix - slopes.diag()).abs().max()) > _AGREES:
            raise ModelError(
                f"{name}: its preprocessing mixes or inverts the channels; serve prepared images "
                "as tensors with a model of your own, --arch"
            )
        numbers = [
            tuple(float(f"{value:.{_DIGITS}g}") + 0.0 for value in each.tolist())  # -0.0 is 0.0
            for each in (-black / slopes, 1.0 / slopes)
        ]
        return cls(numbers[0], numbers[1], is_reversed)

    def as_printed(self, printed: Sequence[Sequence[float]]) -> _Normalisation:
        """With the description's numbers, where they are the measured ones but for rounding."""
        measured = (self.mean, self.std)
        if len(printed) != 2 or any(
            len(p) != len(m) for p, m in zip(printed, measured, strict=True)
        ):
            return self
        for numbers, found in zip(printed, measured, strict=True):
            if max(abs(a - b) for a, b in zip(numbers, found, strict=True)) > _AGREES:
                return self
        mean, std = (tuple(float(each) for each in numbers) for numbers in printed)
        return _Normalisation(mean, std, self.is_reversed)


def _middle(values: Tensor) -> Tensor:
    """The pixel in the middle of `(channels, height, width)`, in float64."""
    return values[:, values.shape[1] // 2, values.shape[2] // 2].double()


def _plain(channels: int, bright: int | None) -> Any:
    from PIL import Image

    colour = [255 if at == bright else 0 for at in range(channels)]
    mode = "L" if channels == 1 else "RGB"
    return Image.new(mode, (_SIDE, _SIDE), colour[0] if channels == 1 else tuple(colour))


def _mismatch(process: Process, inputs: OwnInputs, channels: int) -> float:
    """The largest difference of a pixel in [0, 1], over pictures of several sizes."""
    height, width = inputs.steps.size or (_SIDE, _SIDE)
    sizes = [(height * 5 // 4 + 3, width * 7 // 4), (height * 2 + 1, width * 5 // 4 + 2),
             (height * 3 // 4, width * 3 // 4 + 1)]  # fmt: skip
    mean, std = (torch.tensor(each).view(-1, 1, 1) for each in (inputs.mean, inputs.std))
    largest = 0.0
    for number, (high, wide) in enumerate(sizes):
        picture = _textured(high, wide, channels, number)
        theirs = process(picture).float()
        theirs = (theirs.flip(0) if inputs.is_reversed else theirs) * std + mean
        ours = to_tensor(inputs.steps(picture), channels, "a test picture")
        if ours.shape != theirs.shape:
            return 1.0
        largest = max(largest, float((ours - theirs).abs().max()))
    return largest


def _textured(height: int, width: int, channels: int, seed: int) -> Any:
    """A picture with coarse and fine structure, so that other steps give other pixels."""
    from PIL import Image

    generator = np.random.default_rng(seed)
    coarse = Image.fromarray(generator.integers(60, 196, (9, 9, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), dtype=np.int16)
    noisy = smooth + generator.integers(-40, 41, (height, width, 3), dtype=np.int16)
    values = np.clip(noisy, 0, 255).astype(np.uint8)
    return Image.fromarray(values if channels == 3 else values[:, :, 0])
