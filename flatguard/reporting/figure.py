"""A figure as a page shows it: a picture, its words, its numbers, and what a pointer reads off."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from markupsafe import Markup

from flatguard.reporting.text import visible

Tone = Literal["survived", "fell", "clean", "other", "ink"]
"""What a colour stands for, on every page."""

MOST_ROWS = 60


@dataclass(frozen=True)
class Table:
    """The numbers behind a figure."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Reading:
    """What a pointer reads off at a place on the x axis: a line for each series there."""

    at: float
    head: str
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Figure:
    """One figure.

    Attributes:
        name: its anchor in the page.
        title: what it shows.
        alt: what is to be seen, in words, for those who do not see it.
        picture: a static SVG.
        caption: how to read it.
        legend: names and tones of its series, in their order.
        table: its numbers.
        readings: by place, for the page's script.
        wide: whether it takes the page's width.
    """

    name: str
    title: str
    alt: str
    picture: Markup
    caption: str
    legend: tuple[tuple[str, Tone], ...] = ()
    table: Table | None = None
    readings: tuple[Reading, ...] = ()
    wide: bool = False

    @property
    def readings_json(self) -> str:
        """The readings as the page's script takes them, from an attribute."""
        rows = [
            [round(reading.at, 1), visible(reading.head), [visible(text) for text in reading.lines]]
            for reading in self.readings
        ]
        return json.dumps(rows, ensure_ascii=False, separators=(",", ":"))


def thinned(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A table of at most `MOST_ROWS` rows, evenly chosen, the last among them."""
    chosen = list(rows)
    if len(chosen) > MOST_ROWS:
        last = len(chosen) - 1
        places = {round(index * last / (MOST_ROWS - 1)) for index in range(MOST_ROWS)}
        chosen = [chosen[place] for place in sorted(places)]
    return Table(tuple(head), tuple(tuple(row) for row in chosen))
