"""What a section of the report is: a plug-in piece that reads a run and gives figures or words.

A new one is a file with a `Section`, and a line in `sections/__init__.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from markupsafe import Markup

from flatguard.reporting.figure import Figure
from flatguard.reporting.judged_run import JudgedRun


@dataclass(frozen=True)
class Drawn:
    """What a section shows.

    Attributes:
        figures: in their order.
        html: what is no figure; escaped already.
        intro: a sentence before them.
        data: the numbers, for `report.json`.
    """

    figures: tuple[Figure, ...] = ()
    html: Markup = field(default_factory=Markup)
    intro: str = ""
    data: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class NotMeasured:
    """Why a section has nothing to show, and what would measure it."""

    why: str
    how: str | None = None


@dataclass(frozen=True)
class Section:
    """A piece of the report.

    Attributes:
        name: its anchor, and its key in `report.json`.
        title: its heading.
        draw: from a run to what is shown; it reads evidence and judges nothing.
    """

    name: str
    title: str
    draw: Callable[[JudgedRun], Drawn | NotMeasured]
