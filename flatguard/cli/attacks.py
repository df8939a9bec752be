"""`flatguard attacks`: every attack that can be named."""

from __future__ import annotations

import inspect
import json
from typing import Annotated

import typer


def command(
    name: Annotated[str | None, typer.Argument(help="Show this attack's arguments.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON on stdout.")] = False,
) -> None:
    """List the attacks with their norms; with a NAME, its arguments and their defaults."""
    from rich.console import Console
    from rich.table import Table

    from flatguard.attacks import find_attack, libraries, list_attacks, unavailable
    from flatguard.attacks.prompt_attack import (
        find_prompt_attack,
        is_prompt_attack,
        prompt_attacks,
    )

    if name is not None:
        infos = [find_prompt_attack(name) if is_prompt_attack(name) else find_attack(name)]
    else:
        infos = [*list_attacks(), *prompt_attacks()]
    if as_json:
        rows = [
            {
                "name": info.name,
                "library": info.library,
                "norms": list(info.norms),
                "minimum_norm": info.minimum_norm,
                "arguments": {n: _default(p) for n, p in info.parameters.items()},
                "needs": info.needs,
            }
            for info in infos
        ]
        typer.echo(json.dumps(rows, indent=2))
        return
    table = Table(box=None, padding=(0, 2, 0, 0))
    for title in ("attack", "norms", "arguments" if name else "kind"):
        table.add_column(title)
    for info in infos:
        arguments = ", ".join(f"{n}={_default(p)}" for n, p in info.parameters.items())
        kind = info.needs and f"needs {info.needs}"
        kind = kind or ("minimum norm" if info.minimum_norm else "within eps")
        if info.norms == ("none",) and not info.needs:
            kind = "on prompts" if is_prompt_attack(info.name) else "no budget"
        table.add_row(info.name, " ".join(info.norms), (arguments or "none") if name else kind)
    console = Console(soft_wrap=not name)
    console.print(table)
    for library in () if name else libraries():
        if why := unavailable(library):
            console.print(f"\n{why}", markup=False)


def _default(parameter: inspect.Parameter) -> str:
    empty = parameter.default is inspect.Parameter.empty
    return "(required)" if empty else repr(parameter.default)
