"""`flatguard doctor`: what is wrong with this installation, and what was mended."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

COLOURS = {"ok": "green", "mended": "cyan", "note": "yellow", "broken": "bold red"}


def command(
    as_json: Annotated[bool, typer.Option("--json", help="JSON on stdout.")] = False,
) -> None:
    """Show what was found, what was mended, and what is left to do. Exit 2 if it is broken."""
    from rich.console import Console
    from rich.table import Table

    from flatguard.doctor import diagnose

    rows = diagnose()
    if as_json:
        typer.echo(json.dumps([asdict(row) for row in rows], indent=2))
    else:
        table = Table(show_lines=True)
        for title in ("", "found", "mended", "what to do"):
            table.add_column(title, overflow="fold")
        for row in rows:
            colour = COLOURS[row.status]
            table.add_row(
                f"[{colour}]{row.status}[/]\n{row.subject}", row.found, row.mended, row.do
            )
        Console().print(table)
    if any(row.status == "broken" for row in rows):
        raise typer.Exit(2)
