"""Writes a run's report beside its evidence: a page, JSON, JUnit XML, SARIF and Markdown."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from flatguard.errors import RunFolderError
from flatguard.reporting.json_report import report_document
from flatguard.reporting.judged_run import JudgedRun
from flatguard.reporting.junit import junit_xml
from flatguard.reporting.markdown import markdown_summary
from flatguard.reporting.report_page import report_page
from flatguard.reporting.sarif import sarif
from flatguard.reporting.sections import SECTIONS
from flatguard.reporting.sections.section import build_sections
from flatguard.runs.json_files import write_text
from flatguard.runs.run import Run


@dataclass(frozen=True)
class ReportFiles:
    """The files of a report."""

    html: Path
    json: Path
    junit: Path
    sarif: Path
    markdown: Path


def report_files(run: Run) -> ReportFiles:
    """The paths of a run's report, whether it was written or not."""
    return ReportFiles(
        run.path / "report.html",
        run.path / "report.json",
        run.path / "report.junit.xml",
        run.path / "report.sarif",
        run.path / "report.md",
    )


def write_report(run: Run) -> ReportFiles:
    """Write a judged run's report and replace an earlier one; needs neither model nor data.

    No file is written before all of them are built.

    Raises:
        RunFolderError: the run is damaged, has no verdict, or its folder cannot be written.
    """
    judged, files = JudgedRun.load(run), report_files(run)
    sections = build_sections(judged, SECTIONS)
    contents = {
        files.html: report_page(judged, sections),
        files.json: report_document(judged, sections).model_dump_json(indent=1),
        files.junit: junit_xml(judged),
        files.sarif: sarif(judged),
        files.markdown: markdown_summary(judged),
    }
    for file, content in contents.items():
        try:
            write_text(file, content)
        except OSError as error:
            raise RunFolderError(f"cannot write {file}: {error.strerror or error}") from error
    return files
