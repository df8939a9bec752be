"""Shares with their intervals on lines from 0 to 100%."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from flatguard.reporting.figure import Figure, FigureText, Tone, short_table
from flatguard.reporting.svg import Scale, disc, drawing, line, path, polyline, text
from flatguard.reporting.text import between, percent, shortened

LABEL_WIDTH, ROW_HEIGHT = 160.0, 24.0
_TOP, _BOTTOM, _WIDTH, _RIGHT = 12.0, 42.0, 460.0, 18.0
_LONGEST_LABEL = 22


@dataclass(frozen=True)
class IntervalRow:
    """A share with its interval; `note` says of how many samples."""

    name: str
    tone: Tone
    share: float
    interval: tuple[float, float]
    note: str = ""


def interval_chart(words: FigureText, x_name: str, rows: Sequence[IntervalRow]) -> Figure:
    """Shares with their intervals, one row each."""
    height = _TOP + ROW_HEIGHT * len(rows) + _BOTTOM
    bottom = height - _BOTTOM
    scale = Scale(0.0, 1.0, LABEL_WIDTH, _WIDTH - _RIGHT)
    parts = [*percent_grid(scale, _TOP, bottom, bottom + 16)]
    parts.append(line(LABEL_WIDTH, bottom, scale(1.0), bottom, "axis"))
    parts.append(text((LABEL_WIDTH + scale(1.0)) / 2, height - 6, x_name, "label middle"))
    for index, row in enumerate(rows):
        y = _TOP + ROW_HEIGHT * (index + 0.5)
        parts.append(row_label(row.name, y))
        parts.extend(interval_mark(scale, y, row.share, row.interval, row.tone))
    numbers = [(row.name, percent(row.share), between(row.interval), row.note) for row in rows]
    return Figure(
        words,
        drawing(_WIDTH, height, words.alt, parts),
        table=short_table(("attempt", x_name, "95% interval", "samples"), numbers),
    )


def row_label(name: str, y: float) -> Markup:
    """The name of a row, left of the chart; a long name is shortened."""
    return text(LABEL_WIDTH - 8, y + 4, shortened(name, _LONGEST_LABEL), "tick end")


def percent_grid(scale: Scale, top: float, bottom: float, label_y: float) -> Iterator[Markup]:
    """Vertical lines at 0, 25, 50, 75 and 100%, with labels."""
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        yield line(scale(share), top, scale(share), bottom, "grid")
        yield text(scale(share), label_y, f"{share:.0%}", "tick middle")


def interval_mark(
    scale: Scale,
    y: float,
    share: float,
    interval: tuple[float, float] | None,
    tone: str,
    radius: float = 4.0,
) -> Iterator[Markup]:
    """A disc at a share, on a line over its interval."""
    if interval is not None:
        yield path(polyline([(scale(end), y) for end in interval]), f"whisker {tone}")
    yield path(disc(scale(min(max(share, 0.0), 1.0)), y, radius), f"dot {tone}")
