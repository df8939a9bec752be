"""`flatguard compare`: two runs over the same samples, side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flatguard.cli.options import Json


def command(
    first: Annotated[str, typer.Argument(metavar="A", help="A run folder.")],
    second: Annotated[str, typer.Argument(metavar="B", help="Another, over the same samples.")],
    html: Annotated[Path | None, typer.Option(help="Also write a page to this file.")] = None,
    as_json: Json = False,
) -> None:
    """Paired differences between two runs, with exact tests, by check and by sample."""
    from flatguard.reporting.compare import compare_runs
    from flatguard.reporting.compare_page import compare_page
    from flatguard.reporting.judged_run import JudgedRun
    from flatguard.reporting.paired_path import paired_path
    from flatguard.runs.json_files import write_text
    from flatguard.runs.run import load_run

    runs = load_run(first), load_run(second)
    found = compare_runs(*runs)
    if html is not None:
        one, other = (JudgedRun.load(run) for run in runs)
        write_text(html, compare_page(found, paired_path(one, other, found)))
    if as_json:
        typer.echo(found.model_dump_json())
        return
    from flatguard.cli.side_by_side import show

    show(found)
    if html is not None:
        typer.echo(f"\n{html}")
