"""`flatguard doctor`: what is wrong with this installation, and what repairs it."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from flatguard.environment.doctor import Diagnosis

COLOURS = {"ok": "green", "workaround": "cyan", "note": "yellow", "broken": "bold red"}


def command(
    fix: Annotated[
        bool, typer.Option("--fix", help="Repair what can be repaired; prints each command.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON on stdout.")] = False,
) -> None:
    """Show what was found, which workarounds are needed here, and what to do. Exit 2 if broken."""
    from flatguard.environment.doctor import diagnose
    from flatguard.environment.doctor import fix as fixed

    rows = diagnose()
    if fix and any(row.repairs for row in rows):
        for line in fixed(rows):
            typer.echo(f"running: {line}", err=True)
        raise typer.Exit(_again(as_json))
    if fix:
        typer.echo("nothing that flatguard can repair was found", err=True)
    if as_json:
        typer.echo(json.dumps([asdict(row) for row in rows], indent=2))
    else:
        _show(rows)
    if any(row.status == "broken" for row in rows):
        raise typer.Exit(2)


def _again(as_json: bool) -> int:
    """The doctor in a new process: this one has imported what was repaired."""
    options = ["--json"] if as_json else []
    sys.stdout.flush()
    command = [sys.executable, "-m", "flatguard", "doctor", *options]
    return subprocess.run(command, check=False).returncode


def _show(rows: list[Diagnosis]) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(soft_wrap=True, highlight=False)
    wide = max(len(row.status) for row in rows)
    for row in rows:
        console.print(
            Text(f"{row.status:<{wide}}  ", COLOURS[row.status]) + Text(row.subject, "bold"),
            Text(row.found),
            sep=": ",
        )
        details = (("workaround", row.workaround), ("report", row.report), ("do", row.do))
        for title, text in details:
            if text:
                console.print(Text(" " * (wide + 4) + f"{title}: {text}"))
    broken = sum(row.status == "broken" for row in rows)
    last = f"{broken} of {len(rows)} are broken" if broken else "nothing is broken"
    if any(row.repairs for row in rows):
        last += "; repair it with: flatguard doctor --fix"
    console.print(f"\n{last}")
