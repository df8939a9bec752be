"""`flatguard report`: draw the reports of runs again, without their models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="Run folders.")],
) -> None:
    """Draw report.html, report.json, report.junit.xml and report.md in each run's folder.

    A run on the prompts of a language model has the first two.
    """
    from flatguard.reporting.prompt_report import PAGE, write_prompt_report
    from flatguard.reporting.report import write_report
    from flatguard.runs.prompt_run import is_prompt_run, load_prompt_run
    from flatguard.runs.run import load_run

    for path in runs:
        if is_prompt_run(path):
            write_prompt_report(load_prompt_run(path))
            typer.echo(Path(path) / PAGE)
        else:
            typer.echo(write_report(load_run(path)).html)
