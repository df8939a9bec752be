"""Lines with bands, steps and points with intervals; what they show is the sections' business."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from markupsafe import Markup

from flatguard.reporting.figure import Figure, Reading, Tone, thinned
from flatguard.reporting.svg import (
    Scale,
    area_of,
    at,
    drawing,
    line,
    path,
    path_of,
    spanning,
    text,
    tick_label,
    ticks,
)
from flatguard.reporting.text import number, percent

WIDTH, HEIGHT = 460.0, 270.0
LEFT, RIGHT, TOP, BOTTOM = 60.0, 10.0, 12.0, 42.0
CHARACTER = 7.0  # about the width of one of a tick's label


@dataclass(frozen=True)
class Band:
    """The area between two lines, `strong` or faint."""

    low: Sequence[float]
    high: Sequence[float]
    strong: bool = False


@dataclass(frozen=True)
class Series:
    """One line of a chart.

    Attributes:
        name: in the legend.
        tone: what its colour stands for.
        x: rising.
        y: of the same length; a line breaks where it is NaN.
        bands: behind it.
        kind: a line, steps that hold until the next x, or points with an interval each.
        interval: of each point, for points.
        notes: for each x, what else a pointer reads off.
    """

    name: str
    tone: Tone
    x: Sequence[float]
    y: Sequence[float]
    bands: tuple[Band, ...] = ()
    kind: Literal["line", "steps", "points"] = "line"
    interval: Sequence[tuple[float, float]] = ()
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Axis:
    """What an axis measures; `labels` stand in place of round numbers."""

    name: str
    is_share: bool = False
    labels: tuple[tuple[float, str], ...] = ()

    def marks(self, scale: Scale) -> list[tuple[float, str]]:
        """Where its ticks are, and what they say."""
        if self.labels:
            return list(self.labels)
        write = percent_tick if self.is_share else tick_label
        return [(value, write(value)) for value in ticks(scale.low, scale.high)]

    def say(self, value: float) -> str:
        """A value on it, in words."""
        named = dict(self.labels)
        return named.get(value) or (percent(value) if self.is_share else number(value))


def percent_tick(value: float) -> str:
    """A tick of an axis of shares."""
    return f"{value:.0%}"


@dataclass(frozen=True)
class Words:
    """What a figure is called and how it is read."""

    name: str
    title: str
    alt: str
    caption: str


@dataclass(frozen=True)
class Rule:
    """A vertical line at an x, and its word."""

    x: float
    name: str


@dataclass(frozen=True)
class Plot:
    """A drawing under way: its scales, and what was drawn."""

    x: Scale
    y: Scale
    parts: list[Markup] = field(default_factory=list)

    def add_axes(self, x: Axis, y: Axis) -> None:
        """Grid, ticks and names."""
        bottom = HEIGHT - BOTTOM
        for value, label in y.marks(self.y):
            self.parts.append(line(LEFT, self.y(value), WIDTH - RIGHT, self.y(value), "grid"))
            self.parts.append(text(LEFT - 6, self.y(value) + 4, label, "tick end"))
        for value, label in x.marks(self.x):
            self.parts.append(line(self.x(value), bottom, self.x(value), bottom + 4, "axis"))
            over_the_edge = self.x(value) + len(label) * CHARACTER / 2 > WIDTH
            place, anchor = (WIDTH, "end") if over_the_edge else (self.x(value), "middle")
            self.parts.append(text(place, bottom + 16, label, f"tick {anchor}"))
        self.parts.append(line(LEFT, bottom, WIDTH - RIGHT, bottom, "axis"))
        middle = (LEFT + WIDTH - RIGHT) / 2, (TOP + bottom) / 2
        self.parts.append(text(middle[0], HEIGHT - 6, x.name, "label middle"))
        turned = '<text class="label middle" transform="translate(12 {}) rotate(-90)">{}</text>'
        self.parts.append(Markup(turned).format(at(middle[1]), y.name))

    def add_rules(self, rules: Sequence[Rule]) -> None:
        """Vertical lines with a word each."""
        for rule in rules:
            place = self.x(rule.x)
            self.parts.append(line(place, TOP, place, HEIGHT - BOTTOM, "rule"))
            near_end = place > 0.7 * WIDTH
            anchor = "tick end" if near_end else "tick"
            self.parts.append(text(place + (-4 if near_end else 4), TOP + 9, rule.name, anchor))


def line_chart(words: Words, x: Axis, y: Axis, series: Sequence[Series]) -> Figure:
    """Lines with bands, steps, and points with intervals over one x axis.

    Args:
        words: title, alternative text, caption.
        x: horizontal axis.
        y: vertical axis; shares always show 0 to 100%.
        series: the lines, the later ones on top.
    """
    plot = Plot(_x_scale(series), _y_scale(series, y))
    plot.add_axes(x, y)
    for index, one in enumerate(series):
        plot.parts.extend(_drawn(plot, one, index))
    return Figure(
        words.name,
        words.title,
        words.alt,
        drawing(WIDTH, HEIGHT, words.alt, plot.parts),
        words.caption,
        legend=tuple((one.name, one.tone) for one in series),
        table=thinned((x.name, *(one.name for one in series)), _rows(x, y, series)),
        readings=tuple(_readings(plot, x, y, series)),
    )


def _x_scale(series: Sequence[Series]) -> Scale:
    values = [float(value) for one in series for value in one.x]
    return spanning(values, LEFT, WIDTH - RIGHT, 0.02)


def _y_scale(series: Sequence[Series], axis: Axis) -> Scale:
    if axis.is_share:
        return Scale(0.0, 1.0, HEIGHT - BOTTOM, TOP)
    values = [float(v) for one in series for v in one.y]
    for one in series:
        values += [float(v) for band in one.bands for v in (*band.low, *band.high)]
    return spanning(values, HEIGHT - BOTTOM, TOP)


def _drawn(plot: Plot, one: Series, index: int) -> Iterator[Markup]:
    places = [plot.x(float(value)) for value in one.x]
    for band in one.bands:
        high = list(zip(places, (plot.y(float(v)) for v in band.high), strict=True))
        low = list(zip(places, (plot.y(float(v)) for v in band.low), strict=True))
        strength = "strong" if band.strong else "faint"
        yield path(area_of(high, low), f"band {strength} {one.tone}", index)
    points = list(zip(places, (plot.y(float(v)) for v in one.y), strict=True))
    if one.kind == "points":
        for (place, value), (low_end, high_end) in zip(points, one.interval, strict=True):
            whisker = [(place, plot.y(low_end)), (place, plot.y(high_end))]
            yield path(path_of(whisker), f"whisker {one.tone}", index)
            yield path(dot(place, value), f"dot {one.tone}", index)
        return
    if one.kind == "steps":
        points = list(corners(points))
    yield path(path_of(points), f"line {one.tone}", index)


def corners(points: Sequence[tuple[float, float]]) -> Iterator[tuple[float, float]]:
    """Steps that hold each value until the next place."""
    for index, (place, value) in enumerate(points):
        if index:
            yield place, points[index - 1][1]
        yield place, value


def dot(x: float, y: float, radius: float = 4.0) -> str:
    """The `d` of a disc."""
    return (
        f"M{at(x - radius)} {at(y)}a{at(radius)} {at(radius)} 0 1 0 {at(2 * radius)} 0"
        f"a{at(radius)} {at(radius)} 0 1 0 {at(-2 * radius)} 0"
    )


def _said(one: Series, index: int, y: Axis) -> str:
    value = y.say(float(one.y[index]))
    if one.interval:
        low, high = one.interval[index]
        value += f" ({y.say(low)} to {y.say(high)})"
    return f"{value}{', ' + one.notes[index] if one.notes else ''}"


def _by_x(series: Sequence[Series]) -> dict[float, dict[int, int]]:
    """For every x, which series have a value there, and which of theirs it is."""
    found: dict[float, dict[int, int]] = {}
    for number_of, one in enumerate(series):
        for index, value in enumerate(one.x):
            found.setdefault(float(value), {})[number_of] = index
    return dict(sorted(found.items()))


def _rows(x: Axis, y: Axis, series: Sequence[Series]) -> list[list[str]]:
    return [
        [x.say(value)]
        + [_said(one, there[i], y) if i in there else "" for i, one in enumerate(series)]
        for value, there in _by_x(series).items()
    ]


def _readings(plot: Plot, x: Axis, y: Axis, series: Sequence[Series]) -> Iterator[Reading]:
    for value, there in _by_x(series).items():
        lines = tuple(f"{series[i].name}: {_said(series[i], k, y)}" for i, k in there.items())
        yield Reading(plot.x(value), f"{x.name} {x.say(value)}", lines)
