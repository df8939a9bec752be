"""`flatguard reproduce`: a figure, table or statement of a paper, on the user's own model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flatguard.cli import options
from flatguard.cli.options import MODEL_AND_DATA, takes
from flatguard.errors import UsageError

if TYPE_CHECKING:
    from flatguard.studies.result import Result

Models = Annotated[
    list[str] | None,
    typer.Option("--model", help="As for evaluate; repeated where a study compares models."),
]
_MEANINGS = {
    "agrees": "the number here follows the rule, which was set before anything was measured",
    "differs": "on this model and data it does not; that is a result, and no error",
    "refuted": "the statement is false as it is printed; its note has the counterexample",
    "not-measured": "nothing could be measured, for the reason in the note; that is never a pass",
}
COLOURS = {"agrees": "green", "differs": "yellow", "refuted": "red", "not-measured": "dim"}


@takes({*MODEL_AND_DATA} - {"model", "n_examples", "preprocessing", "logit_scale"})
def command(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Such as walter-fig13 or stutz-table1.")
    ] = None,
    *,
    model: Models = None,
    runs: Annotated[
        list[Path] | None,
        typer.Option(
            help="Runs of `geometry robust-flatness`, or a folder of them; repeated. Or one run on "
            "the prompts of a language model."
        ),
    ] = None,
    n_examples: Annotated[
        int | None, typer.Option(help="The first so many; by default the study's own number.")
    ] = None,
    given: dict[str, Any],
    show_list: Annotated[
        bool, typer.Option("--list", help="Name every figure and table, with its status.")
    ] = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Test a claim of a paper: its number, ours, the interval and the verdict.

    Verdicts: agrees; differs, on this model and data; refuted, where the statement is false as
    printed, with the counterexample; not-measured, with the reason. The exit code is 0 whatever
    they are: a claim that fails is a result.
    """
    if show_list:
        _list(as_json)
        return
    if name is None:
        raise UsageError("expected a study's name; `flatguard reproduce --list` names them all")
    from flatguard.cli.progress import watching
    from flatguard.studies.reproduce import reproduce, reproduce_from_runs

    if runs and model:
        raise UsageError("--runs were measured already: name them or --model, not both")
    with watching(quiet, as_json) as watcher:
        if runs:
            result = reproduce_from_runs(name, runs, progress=watcher)
        else:
            data = given.pop("dataset")
            result = reproduce(
                name, model or [], data=data, n_examples=n_examples, progress=watcher, **given
            )
    if as_json:
        typer.echo(result.model_dump_json())
    else:
        _show(result)


def _list(as_json: bool) -> None:
    from rich.console import Console
    from rich.table import Table

    from flatguard.studies import STUDIES

    if as_json:
        keys = ("name", "paper", "reference", "claim", "number", "status", "why", "models")
        rows = [{key: getattr(study, key) for key in keys} for study in STUDIES]
        typer.echo(json.dumps(rows, indent=2))
        return
    table = Table(box=None, padding=(0, 2, 0, 0))
    for title in ("name", "where", "status", "claim"):
        table.add_column(title)
    for study in STUDIES:
        why = f" ({study.why})" if study.why else ""
        table.add_row(study.name, study.reference, study.status, study.claim + why)
    Console(soft_wrap=True).print(table)


def _show(result: Result) -> None:
    from rich.console import Console
    from rich.text import Text

    from flatguard.cli.terms import show_terms

    console = Console(soft_wrap=True, highlight=False)
    shown = []

    def say(line: str) -> None:
        shown.append(line)
        console.print(line, markup=False)

    say(f"\n{result.study}, {result.reference}: {result.claim}\n")
    for claim in result.claims:
        console.print(Text(f"{claim.verdict:<13}", style=COLOURS[claim.verdict]) + claim.claim)
        shown.append(claim.claim)
        say(f"{'':13}paper: {claim.paper}; here: {claim.result()}")
        say(f"{'':13}it agrees if {claim.rule}")
        if claim.note:
            say(f"{'':13}{claim.note}")
    for note in result.notes:
        say(note)
    console.print()
    for verdict in dict.fromkeys(claim.verdict for claim in result.claims):
        console.print(f"{verdict}: {_MEANINGS[verdict]}", markup=False)
    show_terms(console, *shown)
