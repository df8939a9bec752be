"""A comparison of two runs in the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Console

from flatguard.reporting.compare import Comparison
from flatguard.reporting.compare_page import difference, headline, p_value, points
from flatguard.reporting.text import number, percent, visible

MOST_SETTINGS = 12


def show(comparison: Comparison) -> None:
    """Print sides, accuracies, checks, and what differs between the runs."""
    console = Console(soft_wrap=True, highlight=False)
    lines = [
        *_sides(comparison), "", *aligned(_accuracies(comparison)), "",
        *aligned(_checks(comparison)), "", *_settings(comparison), "", headline(comparison),
        difference(comparison),
    ]  # fmt: skip
    for line in lines:
        console.print(visible(line), markup=False)


def aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Lines with columns as wide as their widest cell, and two blanks between them."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield "  ".join(cells).rstrip()


def _sides(comparison: Comparison) -> Iterator[str]:
    for letter, side in (("A", comparison.first), ("B", comparison.second)):
        yield f"{letter}  {side.model}, {side.attack} within {side.budget}: {side.sentence}"


def _accuracies(comparison: Comparison) -> list[list[str]]:
    rows = [[f"{comparison.samples:,} samples", "A", "B", "B less A", "A only", "B only", ""]]
    for row in comparison.accuracies:
        rows.append(
            [
                row.name, percent(row.first), percent(row.second), points(row),
                str(len(row.only_first)), str(len(row.only_second)), p_value(row.p_value),
            ]
        )  # fmt: skip
    return rows


def _checks(comparison: Comparison) -> list[list[str]]:
    rows = [["check", "A", "value", "B", "value", ""]]
    for row in comparison.checks:
        rows.append(
            [
                row.check, row.first or "unknown", number(row.first_value),
                row.second or "unknown", number(row.second_value),
                "changed" if row.changed else "",
            ]
        )  # fmt: skip
    return rows


def _settings(comparison: Comparison) -> Iterator[str]:
    for setting in comparison.settings[:MOST_SETTINGS]:
        yield f"differs: {setting.name}  {setting.first} → {setting.second}"
    left = len(comparison.settings) - MOST_SETTINGS
    if left > 0:
        yield f"and {left} more settings; --json lists them"
