"""Line charts: lines with bands, steps, and points with intervals."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from markupsafe import Markup

from flatguard.reporting.figure import Figure, FigureText, Reading, Tone, short_table
from flatguard.reporting.svg import (
    Scale,
    area,
    coordinate,
    disc,
    drawing,
    line,
    path,
    polyline,
    scale_for,
    steps,
    text,
    tick_label,
    ticks,
)
from flatguard.reporting.text import number, percent

WIDTH, HEIGHT = 460.0, 270.0
LEFT, RIGHT, TOP, BOTTOM = 60.0, 10.0, 12.0, 42.0
_LABEL_HEIGHT = 11.0
_CHARACTER = 7.0  # the approximate width of one character of a tick's label


@dataclass(frozen=True)
class Band:
    """The area between two lines; `strong` makes it darker."""

    low: Sequence[float]
    high: Sequence[float]
    strong: bool = False


@dataclass(frozen=True)
class Series:
    """One line of a chart.

    Attributes:
        name: its name in the legend.
        tone: what its colour stands for.
        x: ascending values.
        y: one value for each x; the line breaks where it is NaN.
        bands: areas behind the line.
        kind: a line, steps that hold until the next x, or points with intervals.
        interval: an interval for each point.
        notes: further text for each x, shown with the value.
        label: a short text at the line's end, where colours alone would not tell lines apart.
    """

    name: str
    tone: Tone
    x: Sequence[float]
    y: Sequence[float]
    bands: tuple[Band, ...] = ()
    kind: Literal["line", "steps", "points"] = "line"
    interval: Sequence[tuple[float, float]] = ()
    notes: Sequence[str] = ()
    label: str = ""


@dataclass(frozen=True)
class Axis:
    """What an axis measures, and how its values are written.

    Attributes:
        name: what it measures.
        is_share: its values are shares, shown as percentages.
        is_whole: its values are counts or steps: no tick lies between two whole numbers.
        labels: replace the round numbers of its ticks.
    """

    name: str
    is_share: bool = False
    is_whole: bool = False
    labels: tuple[tuple[float, str], ...] = ()

    def ticks(self, scale: Scale) -> list[tuple[float, str]]:
        """The places of its ticks, with their labels."""
        if self.labels:
            return list(self.labels)
        label = "{:.0%}".format if self.is_share else tick_label
        return [
            (value, label(value)) for value in ticks(scale.low, scale.high, whole=self.is_whole)
        ]

    def format(self, value: float) -> str:
        """A value on this axis as text."""
        label = dict(self.labels).get(value)
        return label or (percent(value) if self.is_share else number(value))


@dataclass(frozen=True)
class ReferenceLine:
    """A vertical line at an x, with its name."""

    x: float
    name: str


@dataclass(frozen=True)
class Plot:
    """The scales of a chart, and the SVG elements that were drawn so far."""

    x: Scale
    y: Scale
    parts: list[Markup] = field(default_factory=list)

    def add_axes(self, x: Axis, y: Axis) -> None:
        """Draw grid, ticks and axis names."""
        bottom = HEIGHT - BOTTOM
        for value, label in y.ticks(self.y):
            self.parts.append(line(LEFT, self.y(value), WIDTH - RIGHT, self.y(value), "grid"))
            self.parts.append(text(LEFT - 6, self.y(value) + 4, label, "tick end"))
        for value, label in x.ticks(self.x):
            at = self.x(value)
            self.parts.append(line(at, bottom, at, bottom + 4, "axis"))
            overflows = at + len(label) * _CHARACTER / 2 > WIDTH
            label_x, anchor = (WIDTH, "end") if overflows else (at, "middle")
            self.parts.append(text(label_x, bottom + 16, label, f"tick {anchor}"))
        self.parts.append(line(LEFT, bottom, WIDTH - RIGHT, bottom, "axis"))
        self.parts.append(text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, x.name, "label middle"))
        rotated = '<text class="label middle" transform="translate(12 {}) rotate(-90)">{}</text>'
        self.parts.append(Markup(rotated).format(coordinate((TOP + bottom) / 2), y.name))

    def add_reference_lines(self, lines: Sequence[ReferenceLine]) -> None:
        """Draw vertical lines with their names."""
        for reference in lines:
            x = self.x(reference.x)
            self.parts.append(line(x, TOP, x, HEIGHT - BOTTOM, "rule"))
            offset, anchor = (-4, "tick end") if x > 0.7 * WIDTH else (4, "tick")
            self.parts.append(text(x + offset, TOP + 9, reference.name, anchor))


def line_chart(
    words: FigureText,
    x: Axis,
    y: Axis,
    series: Sequence[Series],
    lines: Sequence[ReferenceLine] = (),
) -> Figure:
    """Lines with bands, steps, and points with intervals over one x axis.

    Args:
        words: name, title, description and caption.
        x: the horizontal axis.
        y: the vertical axis; an axis of shares always shows 0 to 100%.
        series: the lines; later ones are drawn on top.
        lines: vertical lines with names.
    """
    x_values = [float(value) for one in series for value in one.x]
    margin = 0.05 if any(one.label for one in series) else 0.02
    plot = Plot(scale_for(x_values, LEFT, WIDTH - RIGHT, margin), _y_scale(series, y))
    plot.add_axes(x, y)
    for index, one in enumerate(series):
        plot.parts.extend(_draw_series(plot, one, index))
    plot.add_reference_lines(lines)
    plot.parts.extend(_end_labels(plot, series))
    values = _values_by_x(series, y)
    rows = [
        [x.format(value), *(there.get(index, "") for index in range(len(series)))]
        for value, there in values.items()
    ]
    return Figure(
        words,
        drawing(WIDTH, HEIGHT, words.alt, plot.parts),
        legend=tuple((one.name, one.tone) for one in series),
        table=short_table((x.name, *(one.name for one in series)), rows),
        readings=tuple(
            Reading(
                plot.x(value),
                f"{x.name} {x.format(value)}",
                tuple(f"{series[index].name}: {text}" for index, text in there.items()),
            )
            for value, there in values.items()
        ),
    )


def _y_scale(series: Sequence[Series], axis: Axis) -> Scale:
    if axis.is_share:
        return Scale(0.0, 1.0, HEIGHT - BOTTOM, TOP)
    values = [float(v) for one in series for v in one.y]
    for one in series:
        values += [float(v) for band in one.bands for v in (*band.low, *band.high)]
    return scale_for(values, HEIGHT - BOTTOM, TOP)


def _draw_series(plot: Plot, one: Series, index: int) -> Iterator[Markup]:
    def points(y: Sequence[float]) -> list[tuple[float, float]]:
        return [(plot.x(float(a)), plot.y(float(b))) for a, b in zip(one.x, y, strict=True)]

    for band in one.bands:
        strength = "strong" if band.strong else "faint"
        yield path(area(points(band.high), points(band.low)), f"band {strength} {one.tone}", index)
    if one.kind != "points":
        corners = steps(points(one.y)) if one.kind == "steps" else points(one.y)
        yield path(polyline(corners), f"line {one.tone}", index)
        return
    for (x, y), ends in zip(points(one.y), one.interval, strict=True):
        yield path(polyline([(x, plot.y(end)) for end in ends]), f"whisker {one.tone}", index)
        yield path(disc(x, y), f"dot {one.tone}", index)


def _end_labels(plot: Plot, series: Sequence[Series]) -> Iterator[Markup]:
    """The labels at the ends of their lines, moved apart where they would overlap."""
    ends = []
    for index, one in enumerate(series):
        if one.label and math.isfinite(one.y[-1]):
            ends.append((plot.y(float(one.y[-1])), plot.x(float(one.x[-1])), index))
    heights = spread([y for y, _, _ in ends], _LABEL_HEIGHT, TOP, HEIGHT - BOTTOM)
    for (_, x, index), y in zip(ends, heights, strict=True):
        yield text(x + 3, y + 4, series[index].label, "tick", index)


def spread(values: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Values in the same order, at least `gap` apart, within `[low, high]`, near where they were.

    Where they do not fit, they are as far apart as they can be.
    """
    gap = min(gap, (high - low) / max(len(values) - 1, 1))
    order = sorted(range(len(values)), key=lambda index: values[index])
    found, last = list(values), low - gap
    for index in order:
        last = found[index] = max(values[index], last + gap)
    last = high + gap
    for index in reversed(order):
        last = found[index] = min(found[index], last - gap)
    return found


def _values_by_x(series: Sequence[Series], y: Axis) -> dict[float, dict[int, str]]:
    """For each x in ascending order: number of the series -> its value there, as text."""
    found: dict[float, dict[int, str]] = {}
    for index, one in enumerate(series):
        for place, x in enumerate(one.x):
            found.setdefault(float(x), {})[index] = _format_value(one, place, y)
    return dict(sorted(found.items()))


def _format_value(one: Series, place: int, y: Axis) -> str:
    value = y.format(float(one.y[place]))
    if one.interval:
        low, high = one.interval[place]
        value += f" ({y.format(low)} to {y.format(high)})"
    return f"{value}, {one.notes[place]}" if one.notes else value
