"""A figure of a page: an SVG image, its text, its numbers, and the values that a pointer shows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from markupsafe import Markup

from flatguard.reporting.summaries import evenly_spaced
from flatguard.reporting.text import visible

Tone = Literal[
    "survived", "fooled", "clean", "other", "ink",
    "series1", "series2", "series3", "series4", "series5", "series6",
    "series7", "series8", "series9", "series10", "series11", "series12",
]  # fmt: skip
"""What a colour stands for, on every page; `series1` to `series12` only tell lines apart."""

SERIES_TONES: tuple[Tone, ...] = (
    "series1", "series2", "series3", "series4", "series5", "series6",
    "series7", "series8", "series9", "series10", "series11", "series12",
)  # fmt: skip
"""Six colours that colour-blind readers can tell apart, then the same dashed."""

_MOST_ROWS = 60


@dataclass(frozen=True)
class FigureText:
    """A figure's text.

    Attributes:
        name: its anchor in the page.
        title: what it shows.
        alt: a description for readers who cannot see the figure.
        caption: how to read it.
    """

    name: str
    title: str
    alt: str
    caption: str = ""


@dataclass(frozen=True)
class Table:
    """The numbers of a figure."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Reading:
    """The values at one place of the x axis: one line for each series."""

    x: float
    head: str
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Figure:
    """One figure.

    Attributes:
        text: name, title, description and caption.
        image: a static SVG.
        legend: names and tones of its series, in their order.
        table: its numbers.
        readings: the values at each place of the x axis, for the page's script.
        wide: whether it takes the page's full width.
    """

    text: FigureText
    image: Markup
    legend: tuple[tuple[str, Tone], ...] = ()
    table: Table | None = None
    readings: tuple[Reading, ...] = ()
    wide: bool = False

    @property
    def readings_json(self) -> str:
        """The readings as the page's script reads them from an attribute."""
        rows = [
            [round(reading.x, 1), visible(reading.head), [visible(text) for text in reading.lines]]
            for reading in self.readings
        ]
        return json.dumps(rows, ensure_ascii=False, separators=(",", ":"))


def short_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A table of at most 60 evenly spaced rows; the first and the last are among them."""
    chosen = [tuple(rows[index]) for index in evenly_spaced(len(rows), _MOST_ROWS)] if rows else []
    return Table(tuple(head), tuple(chosen))
