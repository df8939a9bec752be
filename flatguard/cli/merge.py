"""`flatguard merge`: the shards of one run as one run."""

from __future__ import annotations

from typing import Annotated

import typer


def command(
    shards: Annotated[list[str], typer.Argument(metavar="RUN...", help="Run folders of shards.")],
    out: Annotated[str, typer.Option(help="The new run folder.")],
) -> None:
    """Put the shards of one run together; `flatguard resume` then checks and judges it.

    Exit code 0: every block is there; 3: some are missing.
    """
    from flatguard.checks.finding import TRUST
    from flatguard.environment.system import quoted
    from flatguard.runs.merging import merge

    run = merge(shards, out)
    done, planned = len(run.blocks), len(run.manifest.blocks)
    typer.echo(f"{done} of {planned} blocks are in {out}")
    typer.echo(f"next: flatguard resume {quoted(out)}{run.request.consent}")
    if run.request.consent:
        typer.echo(TRUST)
    raise typer.Exit(0 if run.complete else 3)
