"""`flatguard geometry`: measurements of the two papers, one command a file."""

from __future__ import annotations

import typer

from flatguard.cli import basin, landscape, robust_flatness
from flatguard.cli.options import GroupedCommand

app = typer.Typer(
    help="Measure what Walter et al. (2026) and Stutz et al. (2021) measure, on your own model or "
    "run.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.command("basin")(basin.command)
app.command("landscape")(landscape.command)
app.command("robust-flatness", cls=GroupedCommand)(robust_flatness.command)
