"""A section of the report: a function that reads a judged run and returns figures and text.

To add a section, write a file with a `Section` and add it to `SECTIONS` in `sections/__init__.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from markupsafe import Markup

from flatguard.checks.finding import loading
from flatguard.reporting.figure import Figure
from flatguard.reporting.judged_run import JudgedRun


@dataclass(frozen=True)
class SectionContent:
    """What a section shows.

    Attributes:
        figures: in their order.
        html: further content, escaped already.
        intro: text before the figures.
        data: the numbers, for `report.json`.
    """

    figures: tuple[Figure, ...] = ()
    html: Markup = field(default_factory=Markup)
    intro: str = ""
    data: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class NotMeasured:
    """Why a section has nothing to show, and the command that measures it."""

    why: str
    how: str | None = None


@dataclass(frozen=True)
class Section:
    """A section of the report.

    Attributes:
        name: its anchor in the page and its name in `report.json`.
        title: its heading.
        build: makes the content from a judged run; it reads evidence and judges nothing. None
            where the section does not concern the run.
    """

    name: str
    title: str
    build: Callable[[JudgedRun], SectionContent | NotMeasured | None]


@dataclass(frozen=True)
class BuiltSection:
    """A section with its content."""

    section: Section
    content: SectionContent


@dataclass(frozen=True)
class MissingSection:
    """A section that has nothing to show."""

    section: Section
    reason: NotMeasured


@dataclass(frozen=True)
class Sections:
    """All sections of a report."""

    built: tuple[BuiltSection, ...]
    missing: tuple[MissingSection, ...]


def build_sections(judged: JudgedRun, sections: Sequence[Section]) -> Sections:
    """Build every section; list those that have nothing to show."""
    built, missing = [], []
    evidence = judged.evidence
    typed = partial(loading, names_code=evidence.names_code, from_python=evidence.from_python)
    for section in sections:
        found = section.build(judged)
        if isinstance(found, SectionContent):
            intro = typed(found.intro)
            built.append(BuiltSection(section, replace(found, intro=intro)))
        elif found is not None:
            how = None if found.how is None else typed(found.how)
            missing.append(MissingSection(section, replace(found, how=how)))
    return Sections(tuple(built), tuple(missing))
