"""`flatguard report`: draw the reports of runs again, without their models."""

from __future__ import annotations

from typing import Annotated

import typer


def command(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="Run folders.")],
) -> None:
    """Draw report.html, report.json, report.junit.xml and report.md in each run's folder."""
    from flatguard.reporting.report import write_report
    from flatguard.runs.run import load_run

    for opened in [load_run(path) for path in runs]:
        typer.echo(write_report(opened).html)
