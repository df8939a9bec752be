"""Draws a run's report beside its evidence: for a person, for machines, for a pull request."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from flatguard.errors import RunFolderError
from flatguard.reporting.document import document_of
from flatguard.reporting.html import draw_sections, report_page
from flatguard.reporting.junit import junit_xml
from flatguard.reporting.markdown import markdown
from flatguard.reporting.material import Material
from flatguard.reporting.sections import SECTIONS
from flatguard.runs.store import Run, write_text


@dataclass(frozen=True)
class Report:
    """Where a report lies."""

    html: Path
    json: Path
    junit: Path
    markdown: Path


def report_of(run: Run) -> Report:
    """Where a run's report lies, or will."""
    return Report(
        run.path / "report.html",
        run.path / "report.json",
        run.path / "report.junit.xml",
        run.path / "report.md",
    )


def draw_report(run: Run) -> Report:
    """Draw a judged run's report, in place of an earlier one; needs neither model nor data.

    Nothing is written before everything is drawn.

    Raises:
        RunFolderError: the run is damaged, was not judged, or its folder cannot be written.
    """
    material, report = Material.of(run), report_of(run)
    drawing = draw_sections(material, SECTIONS)
    contents = {
        report.html: report_page(material, drawing),
        report.json: document_of(material, drawing).model_dump_json(indent=1),
        report.junit: junit_xml(material),
        report.markdown: markdown(material),
    }
    for file, content in contents.items():
        try:
            write_text(file, content)
        except OSError as error:
            raise RunFolderError(f"cannot write {file}: {error.strerror or error}") from error
    return report
