"""Draws a run's report beside its evidence: for a person, for machines, for a pull request."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from flatguard.errors import RunFolderError
from flatguard.reporting.json_report import document_of
from flatguard.reporting.judged_run import JudgedRun
from flatguard.reporting.junit import junit_xml
from flatguard.reporting.markdown import markdown_summary
from flatguard.reporting.report_page import draw_sections, report_page
from flatguard.reporting.sections import SECTIONS
from flatguard.runs.json_files import write_text
from flatguard.runs.run import Run


@dataclass(frozen=True)
class ReportFiles:
    """Where a report lies."""

    html: Path
    json: Path
    junit: Path
    markdown: Path


def report_files(run: Run) -> ReportFiles:
    """Where a run's report lies, or will."""
    return ReportFiles(
        run.path / "report.html",
        run.path / "report.json",
        run.path / "report.junit.xml",
        run.path / "report.md",
    )


def write_report(run: Run) -> ReportFiles:
    """Draw a judged run's report, in place of an earlier one; needs neither model nor data.

    Nothing is written before everything is drawn.

    Raises:
        RunFolderError: the run is damaged, was not judged, or its folder cannot be written.
    """
    judged, report = JudgedRun.load(run), report_files(run)
    drawing = draw_sections(judged, SECTIONS)
    contents = {
        report.html: report_page(judged, drawing),
        report.json: document_of(judged, drawing).model_dump_json(indent=1),
        report.junit: junit_xml(judged),
        report.markdown: markdown_summary(judged),
    }
    for file, content in contents.items():
        try:
            write_text(file, content)
        except OSError as error:
            raise RunFolderError(f"cannot write {file}: {error.strerror or error}") from error
    return report
