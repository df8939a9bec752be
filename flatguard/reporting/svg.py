"""Static SVG without inline styles.

Colours and fonts are classes of the page's style sheet. A figure therefore follows light, dark and
print styles, and the page's policy can forbid inline styles. Coordinates are in the figure's units.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

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
        """The coordinate of a value."""
        share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.stop - self.start)


def scale_for(values: Iterable[float], start: float, stop: float, margin: float = 0.04) -> Scale:
    """A scale that holds all finite values, with a margin at both ends."""
    finite = [float(value) for value in values if math.isfinite(value)] or [0.0, 1.0]
    low, high = value_range(min(finite), max(finite))
    extra = margin * (high - low)
    return Scale(low - extra, high + extra, start, stop)


def value_range(low: float, high: float) -> tuple[float, float]:
    """The range; a range without extent becomes one unit wide."""
    if high - low < 1e-9 * max(1.0, abs(high)):
        return low - 0.5, high + 0.5
    return low, high


def ticks(low: float, high: float, most: int = 5, whole: bool = False) -> list[float]:
    """Round numbers within `[low, high]`, about `most` of them; `whole` numbers only if asked."""
    raw = (high - low) / max(most, 1)
    factors: tuple[float, ...] = (1.0, 2.0, 2.5, 5.0, 10.0)
    if whole:
        raw, factors = max(raw, 1.0), (1.0, 2.0, 5.0, 10.0)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in factors if m * power >= raw * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [index * step for index in range(first, last + 1)]


def tick_label(value: float) -> str:
    """A tick's number with a minus sign; from 10,000 on in thousands, to fit the margin."""
    label = f"{value / 1000:,.6g}k" if abs(value) >= 10_000 else f"{value:,.6g}"
    return label.replace("-", MINUS)


def coordinate(value: float) -> str:
    """A coordinate with one decimal."""
    return f"{value:.1f}".removesuffix(".0")


def polyline(points: Points) -> str:
    """The `d` of a line through these points; the line breaks where a point is not finite."""
    pieces, joined = [], False
    for x, y in points:
        finite = math.isfinite(x) and math.isfinite(y)
        if finite:
            pieces.append(f"{'L' if joined else 'M'}{coordinate(x)} {coordinate(y)}")
        joined = finite
    return "".join(pieces)


def area(upper: Sequence[tuple[float, float]], lower: Sequence[tuple[float, float]]) -> str:
    """The `d` of the area between two lines."""
    if not upper:
        return ""
    return polyline(upper) + polyline(reversed(lower)).replace("M", "L", 1) + "Z"


def disc(x: float, y: float, radius: float = 4.0) -> str:
    """The `d` of a disc."""
    r, across = coordinate(radius), coordinate(2 * radius)
    return (
        f"M{coordinate(x - radius)} {coordinate(y)}a{r} {r} 0 1 0 {across} 0a{r} {r} 0 1 0 "
        f"-{across} 0"
    )


def steps(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The corners of a line that holds each value until the next x."""
    corners = []
    for index, (x, y) in enumerate(points):
        if index:
            corners.append((x, points[index - 1][1]))
        corners.append((x, y))
    return corners


def path(d: str, classes: str, series: int | None = None) -> Markup:
    """A path; `series` is the number of the legend's entry that hides it."""
    # Markup.format would escape the same values ten times slower; a page has thousands of them.
    return Markup(f'<path class="{escape(classes)}"{_series_attribute(series)} d="{escape(d)}"/>')


def line(x1: float, y1: float, x2: float, y2: float, classes: str) -> Markup:
    """A straight line."""
    return path(f"M{coordinate(x1)} {coordinate(y1)}L{coordinate(x2)} {coordinate(y2)}", classes)


def text(x: float, y: float, content: str, classes: str, series: int | None = None) -> Markup:
    """A line of text; the classes decide its anchor and size, `series` as for a path."""
    place = f'x="{coordinate(x)}" y="{coordinate(y)}"'
    return Markup(
        f'<text class="{escape(classes)}"{_series_attribute(series)} {place}>'
        f"{escape(visible(content))}</text>"
    )


def _series_attribute(series: int | None) -> str:
    return "" if series is None else f' data-series="{series}"'


def drawing(width: float, height: float, alt: str, parts: Iterable[Markup]) -> Markup:
    """The whole figure, with a description for readers who cannot see it."""
    body = Markup("").join(parts)
    return Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        coordinate(width), coordinate(height), visible(alt), body
    )
