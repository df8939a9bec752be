"""`flatguard configs`: every evaluation protocol that has a name."""

from __future__ import annotations

import json
from typing import Annotated

import typer


def command(
    name: Annotated[str | None, typer.Argument(help="Print this config.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON on stdout.")] = False,
    schema: Annotated[
        bool, typer.Option("--schema", help="The JSON schema of a config, for editors.")
    ] = False,
) -> None:
    """List the configs that come with flatguard; with a NAME, print it, to copy and to change."""
    from rich.console import Console
    from rich.table import Table

    from flatguard.gate import config

    if schema:
        typer.echo(json.dumps(config.schema(), indent=2))
        return
    if name is not None:
        typer.echo(config.find_config(name).read_text("utf-8"), nl=False)
        return
    known = {found: config.load_config(file) for found, file in config.published().items()}
    if as_json:
        rows = [{"name": found, **one.model_dump(mode="json")} for found, one in known.items()]
        typer.echo(json.dumps(rows, indent=2))
        return
    table = Table(box=None, padding=(0, 2, 0, 0))
    for title in ("config", "what it is"):
        table.add_column(title)
    for found, one in known.items():
        table.add_row(found, one.title)
    Console(soft_wrap=True, highlight=False).print(table)
