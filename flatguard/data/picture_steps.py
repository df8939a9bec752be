"""Resizing and cropping of pictures, written as text: `resize=256:bicubic,crop=224`.

| step | does |
|---|---|
| `resize=256` | the shorter side has 256 pixels, and the longer one keeps the ratio, rounded down |
| `resize=224x256` | the height and width are these |
| `cover=224x256` | the ratio is kept; the picture is as small as it can be and still covers this |
| `fit=224x256` | the ratio is kept; the picture is as large as it can be and still fits into this |
| `crop=224`, `crop=224x256` | the middle; where the picture is smaller, black is put around it |

After a colon, a resizing step takes a filter (`nearest`, `bilinear`, `bicubic`, `lanczos`, `box`,
`hamming`; bilinear by default), and a crop takes the colour around it, `124/116/104`, or `floor`:
where the margins cannot be equal, the smaller one is then at the top and left, and otherwise it is
where torchvision has it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from flatguard.errors import DataError

Filter = Literal["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"]
FILTERS: tuple[Filter, ...] = ("nearest", "bilinear", "bicubic", "lanczos", "box", "hamming")
Kind = Literal["resize", "cover", "fit"]
_LARGEST_SIDE = 1 << 14


@dataclass(frozen=True)
class Resize:
    """Resizes a picture.

    Attributes:
        kind: `resize`, `cover` or `fit`.
        height: in pixels, or the shorter side where there is no width.
        width: in pixels; None keeps the ratio.
        filter: how pixels between pixels are computed.
    """

    kind: Kind
    height: int
    width: int | None
    filter: Filter = "bilinear"

    def __call__(self, picture: Any) -> Any:
        """The resized picture of Pillow."""
        from PIL import Image

        height, width = self._size_of(picture.height, picture.width)
        if (height, width) == (picture.height, picture.width):
            return picture
        return picture.resize((width, height), getattr(Image.Resampling, self.filter.upper()))

    def _size_of(self, height: int, width: int) -> tuple[int, int]:
        if self.width is None:
            longer = max(1, int(self.height * max(height, width) / min(height, width)))
            return (self.height, longer) if height <= width else (longer, self.height)
        if self.kind == "resize":
            return self.height, self.width
        ratios = height / self.height, width / self.width
        ratio = min(ratios) if self.kind == "cover" else max(ratios)
        return max(1, round(height / ratio)), max(1, round(width / ratio))

    def __str__(self) -> str:
        sides = f"{self.height}" if self.width is None else f"{self.height}x{self.width}"
        return f"{self.kind}={sides}:{self.filter}"


@dataclass(frozen=True)
class Crop:
    """Takes the middle of a picture.

    Attributes:
        height: in pixels.
        width: in pixels.
        fill: the colour around a picture that is smaller, from 0 to 255.
        floor: whether the smaller of two unequal margins is always at the top and left.
    """

    height: int
    width: int
    fill: tuple[int, int, int] = (0, 0, 0)
    floor: bool = False

    def __call__(self, picture: Any) -> Any:
        """The cropped picture of Pillow, in RGB where something is put around it."""
        from PIL import Image

        high, wide = max(self.height, picture.height), max(self.width, picture.width)
        if (high, wide) != (picture.height, picture.width):
            around = Image.new("RGB", (wide, high), self.fill)
            around.paste(picture, ((wide - picture.width) // 2, (high - picture.height) // 2))
            picture = around
        top, left = self._margin(high - self.height), self._margin(wide - self.width)
        return picture.crop((left, top, left + self.width, top + self.height))

    def _margin(self, both: int) -> int:
        return both // 2 if self.floor else round(both / 2)

    def __str__(self) -> str:
        sides = f"{self.height}" if self.height == self.width else f"{self.height}x{self.width}"
        options = ["/".join(map(str, self.fill))] if any(self.fill) else []
        options += ["floor"] if self.floor else []
        return ":".join([f"crop={sides}", *options])


Step = Resize | Crop


@dataclass(frozen=True)
class PictureSteps:
    """What is done to a picture before it becomes a tensor.

    Attributes:
        steps: in their order; the last one decides the size.
    """

    steps: tuple[Step, ...] = field(default=())

    def __call__(self, picture: Any) -> Any:
        """The picture of Pillow after all steps."""
        for step in self.steps:
            picture = step(picture)
        return picture

    def __str__(self) -> str:
        return ",".join(str(step) for step in self.steps)

    @property
    def size(self) -> tuple[int, int] | None:
        """The height and width of every result; None where they depend on the picture."""
        for step in reversed(self.steps):
            if isinstance(step, Crop):
                return step.height, step.width
            if step.kind == "resize" and step.width is not None:
                return step.height, step.width
        return None


def are_steps(text: str) -> bool:
    """Whether a text is meant as steps and not as a name of RobustBench."""
    return "=" in text


def parse_steps(text: str) -> PictureSteps:
    """The steps that a text names.

    Raises:
        DataError: names the step that is not understood.

    Example:
        >>> parse_steps("resize=256:bicubic,crop=224").size
        (224, 224)
    """
    return PictureSteps(tuple(_step(part.strip()) for part in text.split(",")))


def _step(text: str) -> Step:
    name, _, rest = text.partition("=")
    sides, *options = rest.split(":")
    found = re.fullmatch(r"([1-9][0-9]*)(?:x([1-9][0-9]*))?", sides)
    if name not in ("resize", "cover", "fit", "crop") or found is None:
        raise _wrong(text)
    numbers = [int(number) for number in found.groups() if number is not None]
    if max(numbers) > _LARGEST_SIDE:
        raise DataError(f"preprocessing {text!r}: at most {_LARGEST_SIDE:,} pixels a side")
    if name == "crop":
        return _crop(text, numbers, options)
    if len(options) > 1 or (options and options[0] not in FILTERS):
        raise _wrong(text)
    filter_: Filter = next((known for known in FILTERS if [known] == options), "bilinear")
    if name == "resize":
        return Resize("resize", numbers[0], numbers[1] if len(numbers) > 1 else None, filter_)
    return Resize("cover" if name == "cover" else "fit", numbers[0], numbers[-1], filter_)


def _crop(text: str, numbers: Sequence[int], options: Sequence[str]) -> Crop:
    floor, fill = False, (0, 0, 0)
    for option in options:
        values = [int(part) for part in option.split("/") if re.fullmatch("[0-9]{1,3}", part)]
        if option == "floor":
            floor = True
        elif len(values) == 3 and max(values) < 256 and option.count("/") == 2:
            fill = (values[0], values[1], values[2])
        else:
            raise _wrong(text)
    return Crop(numbers[0], numbers[-1], fill, floor)


def _wrong(text: str) -> DataError:
    return DataError(
        f"preprocessing {text!r}: expected steps such as resize=256:bicubic,crop=224; resize, "
        f"cover and fit take one of the filters {', '.join(FILTERS)}, crop takes floor or a colour "
        "such as 124/116/104"
    )
