"""Static SVG, drawn by hand: small, without inline styles, in the page's own colours.

Colours and fonts are classes of the page's style sheet, so that a figure follows light, dark and
paper, and the page can forbid inline styles. `x`, `y` and sizes are in the figure's own units.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from flatguard.reporting.text import MINUS, visible

Points = Iterable[tuple[float, float]]


@dataclass(frozen=True)
class Scale:
    """A linear map from `[low, high]` to `[start, stop]`."""

    low: float
    high: float
    start: float
    stop: float

    def __call__(self, value: float) -> float:
        """Where a value is."""
        share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.stop - self.start)


def spanning(values: Iterable[float], start: float, stop: float, room: float = 0.04) -> Scale:
    """A scale that holds all finite values, with some room at both ends."""
    finite = [float(value) for value in values if math.isfinite(value)] or [0.0, 1.0]
    low, high = min(finite), max(finite)
    if high - low < 1e-9 * max(1.0, abs(high)):
        low, high = low - 0.5, high + 0.5
    more = room * (high - low)
    return Scale(low - more, high + more, start, stop)


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round numbers within `[low, high]`, at most so many and a few more."""
    raw = (high - low) / max(most, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1.0, 2.0, 2.5, 5.0, 10.0) if m * power >= raw * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [index * step for index in range(first, last + 1)]


def tick_label(value: float) -> str:
    """A tick's number, with a real minus."""
    return f"{value:,.6g}".replace("-", MINUS)


def at(value: float) -> str:
    """A coordinate, to a tenth of a unit."""
    text = f"{value:.1f}"
    return text.removesuffix(".0")


def path_of(points: Points) -> str:
    """The `d` of a line through these points; it is broken where one is not finite."""
    pieces, joined = [], False
    for x, y in points:
        if not (math.isfinite(x) and math.isfinite(y)):
            joined = False
            continue
        pieces.append(f"{'L' if joined else 'M'}{at(x)} {at(y)}")
        joined = True
    return "".join(pieces)


def area_of(upper: Sequence[tuple[float, float]], lower: Sequence[tuple[float, float]]) -> str:
    """The `d` of the area between two lines."""
    if not upper:
        return ""
    return path_of(upper) + path_of(reversed(lower)).replace("M", "L", 1) + "Z"


def path(d: str, classes: str, series: int | None = None) -> Markup:
    """A path; `series` is what a legend's entry switches off."""
    switch = Markup("") if series is None else Markup(' data-series="{}"').format(series)
    return Markup('<path class="{}"{} d="{}"/>').format(classes, switch, d)


def line(x1: float, y1: float, x2: float, y2: float, classes: str) -> Markup:
    """A straight line."""
    return Markup('<path class="{}" d="M{} {}L{} {}"/>').format(
        classes, at(x1), at(y1), at(x2), at(y2)
    )


def text(x: float, y: float, content: str, classes: str) -> Markup:
    """A line of text; whose anchor and size are in its classes."""
    return Markup('<text class="{}" x="{}" y="{}">{}</text>').format(
        classes, at(x), at(y), visible(content)
    )


def drawing(width: float, height: float, alt: str, parts: Iterable[Markup]) -> Markup:
    """The whole figure, with its words for those who do not see it."""
    body = Markup("").join(parts)
    return Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        at(width), at(height), visible(alt), body
    )
