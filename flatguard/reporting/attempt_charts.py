"""Charts of counts: histograms, shares with their intervals, and who fell to what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from markupsafe import Markup

from flatguard.reporting.charts import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Axis,
    Plot,
    Rule,
    Words,
    corners,
    dot,
    percent_tick,
)
from flatguard.reporting.figure import Figure, Reading, Table, Tone, thinned
from flatguard.reporting.svg import Scale, area_of, at, drawing, line, path, path_of, text
from flatguard.reporting.text import between, counted, percent, shortened

BINS = 40
LABELS, ROW = 160.0, 24.0
WIDE = 940.0
MOST_COLUMNS = 360
SHADES = 4
MOST_LETTERS = 22


@dataclass(frozen=True)
class Heap:
    """Values to be counted in a histogram."""

    name: str
    tone: Tone
    values: np.ndarray


def histogram(words: Words, x: Axis, heaps: Sequence[Heap], rules: Sequence[Rule] = ()) -> Figure:
    """How many samples have which value; heaps share their bins and lie over one another."""
    finite = [heap.values[np.isfinite(heap.values)].astype(float) for heap in heaps]
    edges = _edges(np.concatenate([*finite, [rule.x for rule in rules]]))
    counts = [np.histogram(values, edges)[0] for values in finite]
    most = max(int(count.max()) for count in counts)
    plot = Plot(
        Scale(edges[0], edges[-1], LEFT, WIDTH - RIGHT),
        Scale(0, 1.05 * max(most, 1), HEIGHT - BOTTOM, TOP),
    )
    plot.add_axes(x, Axis("samples"))
    for index, (heap, count) in enumerate(zip(heaps, counts, strict=True)):
        plot.parts.append(path(_outline(plot, edges, count), f"heap {heap.tone}", index))
    plot.add_rules(rules)
    bins = [f"{x.say(low)} to {x.say(high)}" for low, high in pairwise(edges)]
    filled = [
        [name, *(str(int(count[i])) for count in counts)]
        for i, name in enumerate(bins)
        if any(count[i] for count in counts)
    ]
    return Figure(
        words.name,
        words.title,
        words.alt,
        drawing(WIDTH, HEIGHT, words.alt, plot.parts),
        words.caption,
        legend=tuple((heap.name, heap.tone) for heap in heaps),
        table=thinned((x.name, *(heap.name for heap in heaps)), filled),
        readings=tuple(
            Reading(
                plot.x((edges[i] + edges[i + 1]) / 2),
                f"{x.name} {name}",
                tuple(
                    f"{heap.name}: {counted(int(count[i]), 'sample')}"
                    for heap, count in zip(heaps, counts, strict=True)
                ),
            )
            for i, name in enumerate(bins)
        ),
    )


def _edges(values: np.ndarray) -> list[float]:
    low, high = float(values.min()), float(values.max())
    if high - low < 1e-9 * max(1.0, abs(high)):
        low, high = low - 0.5, high + 0.5
    return [float(edge) for edge in np.linspace(low, high, BINS + 1)]


def _outline(plot: Plot, edges: Sequence[float], count: np.ndarray) -> str:
    heights = [*count.tolist(), count[-1]]
    tops = [(plot.x(edge), plot.y(top)) for edge, top in zip(edges, heights, strict=True)]
    floor = [(plot.x(edges[0]), plot.y(0.0)), (plot.x(edges[-1]), plot.y(0.0))]
    return area_of(list(corners(tops)), floor)


@dataclass(frozen=True)
class Row:
    """A share with its interval, on a line of its own; `note` says of what."""

    name: str
    tone: Tone
    share: float
    interval: tuple[float, float]
    note: str = ""


def dots(words: Words, x: Axis, rows: Sequence[Row]) -> Figure:
    """Shares with their intervals, one under the other."""
    height = TOP + ROW * len(rows) + BOTTOM
    scale = Scale(0.0, 1.0, LABELS, WIDTH - RIGHT - 8)
    bottom = height - BOTTOM
    parts = []
    for value in (0.0, 0.25, 0.5, 0.75, 1.0):
        parts.append(line(scale(value), TOP, scale(value), bottom, "grid"))
        parts.append(text(scale(value), bottom + 16, percent_tick(value), "tick middle"))
    parts.append(line(LABELS, bottom, scale(1.0), bottom, "axis"))
    parts.append(text((LABELS + scale(1.0)) / 2, height - 6, x.name, "label middle"))
    for index, row in enumerate(rows):
        y = TOP + ROW * (index + 0.5)
        low, high = row.interval
        parts.append(text(LABELS - 8, y + 4, shortened(row.name, MOST_LETTERS), "tick end"))
        parts.append(path(path_of([(scale(low), y), (scale(high), y)]), f"whisker {row.tone}"))
        parts.append(path(dot(scale(row.share), y), f"dot {row.tone}"))
    numbers = [(row.name, percent(row.share), between(row.interval), row.note) for row in rows]
    return Figure(
        words.name, words.title, words.alt, drawing(WIDTH, height, words.alt, parts),
        words.caption, table=thinned(("attempt", x.name, "95% interval", "of"), numbers),
    )  # fmt: skip


@dataclass(frozen=True)
class MatrixRow:
    """An attempt, and what came of it for each column: 1 fell, 0 did not, NaN was not tried."""

    name: str
    fell: np.ndarray


def matrix(words: Words, unit: str, rows: Sequence[MatrixRow]) -> Figure:
    """Which attempt fools which sample; the samples are put in an order that shows blocks.

    Many samples share a column: its shade is the share of them that fell.
    """
    fell = np.stack([row.fell for row in rows])
    order = np.lexsort(tuple(-np.nan_to_num(row, nan=-1.0) for row in reversed(fell)))
    columns = min(MOST_COLUMNS, fell.shape[1])
    parts_of = np.array_split(fell[:, order], columns, axis=1)
    shares = np.array([[_mean(part[i]) for part in parts_of] for i in range(len(rows))])
    scale = Scale(0.0, float(columns), LABELS, WIDE - RIGHT)
    height = TOP + ROW * len(rows) + BOTTOM
    parts = []
    for index, row in enumerate(rows):
        top = TOP + ROW * index
        label = shortened(row.name, MOST_LETTERS)
        parts.append(text(LABELS - 8, top + ROW / 2 + 4, label, "tick end"))
        parts.extend(_cells(scale, shares[index], top + 2, ROW - 4))
    axis = f"{unit}, in the order of what they fell to"
    parts.append(text((LABELS + WIDE - RIGHT) / 2, height - 10, axis, "label middle"))
    return Figure(
        words.name,
        words.title,
        words.alt,
        drawing(WIDE, height, words.alt, parts),
        words.caption,
        table=Table(
            ("attempt", "tried on", "fell"),
            tuple(
                (row.name, str(int(np.isfinite(row.fell).sum())), str(int(np.nansum(row.fell))))
                for row in rows
            ),
        ),
        wide=True,
    )


def _mean(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")


def _cells(scale: Scale, shares: np.ndarray, top: float, height: float) -> list[Markup]:
    """One path for each shade of a row; neighbours of one shade are one rectangle."""
    shades = np.where(np.isfinite(shares), np.ceil(np.nan_to_num(shares) * SHADES), -1).astype(int)
    ends = [0, *(np.flatnonzero(np.diff(shades)) + 1).tolist(), len(shades)]
    drawn: dict[int, str] = {}
    for begin, end in pairwise(ends):
        left, width = scale(begin), scale(end) - scale(begin)
        box = f"M{at(left)} {at(top)}h{at(width)}v{at(height)}h{at(-width)}z"
        drawn[int(shades[begin])] = drawn.get(int(shades[begin]), "") + box
    return [path(d, f"cell shade{shade}") for shade, d in sorted(drawn.items()) if shade >= 0]
