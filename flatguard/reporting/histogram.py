"""Histograms over samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from flatguard.reporting.charts import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Axis,
    Plot,
    ReferenceLine,
)
from flatguard.reporting.figure import Figure, FigureText, Reading, Tone, short_table
from flatguard.reporting.svg import Scale, area, drawing, path, steps, value_range
from flatguard.reporting.text import counted

_BINS = 40


@dataclass(frozen=True)
class Distribution:
    """The values of one group of samples."""

    name: str
    tone: Tone
    values: np.ndarray


def histogram(
    words: FigureText, x: Axis, groups: Sequence[Distribution], lines: Sequence[ReferenceLine] = ()
) -> Figure:
    """How many samples have which value; groups share their bins and overlap.

    Args:
        words: name, title, description and caption.
        x: what is counted.
        groups: the values of each group; values that are not finite are left out.
        lines: vertical lines, such as thresholds.
    """
    finite = [group.values[np.isfinite(group.values)].astype(float) for group in groups]
    edges = _bin_edges(np.concatenate([*finite, [line.x for line in lines]]))
    counts = [np.histogram(values, edges)[0] for values in finite]
    largest = max(int(count.max()) for count in counts)
    plot = Plot(
        Scale(edges[0], edges[-1], LEFT, WIDTH - RIGHT),
        Scale(0, 1.05 * max(largest, 1), HEIGHT - BOTTOM, TOP),
    )
    plot.add_axes(x, Axis("samples", is_whole=True))
    for index, (group, count) in enumerate(zip(groups, counts, strict=True)):
        plot.parts.append(path(_outline(plot, edges, count), f"bars {group.tone}", index))
    plot.add_reference_lines(lines)
    bins = [f"{x.format(low)} to {x.format(high)}" for low, high in pairwise(edges)]
    by_bin = np.stack(counts, axis=1).tolist()
    return Figure(
        words,
        drawing(WIDTH, HEIGHT, words.alt, plot.parts),
        legend=tuple((group.name, group.tone) for group in groups),
        table=short_table(
            (x.name, *(group.name for group in groups)),
            [[name, *map(str, row)] for name, row in zip(bins, by_bin, strict=True) if any(row)],
        ),
        readings=tuple(
            Reading(
                plot.x((low + high) / 2),
                f"{x.name} {name}",
                tuple(
                    f"{group.name}: {counted(count, 'sample')}"
                    for group, count in zip(groups, row, strict=True)
                ),
            )
            for (low, high), name, row in zip(pairwise(edges), bins, by_bin, strict=True)
        ),
    )


def _bin_edges(values: np.ndarray) -> list[float]:
    low, high = value_range(float(values.min()), float(values.max()))
    edges: list[float] = np.linspace(low, high, _BINS + 1).tolist()
    return edges


def _outline(plot: Plot, edges: Sequence[float], count: np.ndarray) -> str:
    heights = [*count.tolist(), count[-1]]
    tops = [(plot.x(edge), plot.y(top)) for edge, top in zip(edges, heights, strict=True)]
    floor = [(plot.x(edges[0]), plot.y(0.0)), (plot.x(edges[-1]), plot.y(0.0))]
    return area(steps(tops), floor)
