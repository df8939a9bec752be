"""`flatguard baseline`: keep a run, and see whether a later one is worse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="Keep a run sample by sample, and see whether a later one is worse.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]


@app.command("save")
def save(
    run: RunFolder,
    name: Annotated[str | None, typer.Option(help="By default the model's name.")] = None,
    to: Annotated[Path, typer.Option(help="The folder of baselines.")] = Path("baselines"),
    anyway: Annotated[
        bool, typer.Option("--anyway", help="Also of a masked, overestimated or inconclusive run.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write what survived, sample by sample, to a small file to commit: baselines/NAME.json."""
    from flatguard.gate import baseline
    from flatguard.runs.run import load_run

    file = baseline.save(load_run(run), to, name, anyway=anyway)
    typer.echo(json.dumps({"baseline": str(file)}) if as_json else str(file))


@app.command("check")
def check(
    run: RunFolder,
    against: Annotated[
        Path, typer.Option(metavar="FILE_OR_RUN", help="A baseline's file, or a run folder.")
    ],
    tolerance: Annotated[
        float, typer.Option(help="The fall that is let pass, as a share of all samples.")
    ] = 0.02,
    as_json: AsJson = False,
) -> None:
    """Compare the worst case over everything tried with a baseline, on the same samples.

    Exit code 0: no worse; 1: the fall is beyond the tolerance and beyond chance (exact McNemar
    test, 5%), or RUN is masked or overestimated itself; 2: other data or another protocol; 3: too
    few samples to tell, or RUN is inconclusive.
    """
    from flatguard.cli.gated import on_github
    from flatguard.errors import visible
    from flatguard.gate import baseline
    from flatguard.runs.run import load_run

    found = baseline.compare(load_run(run), baseline.load(against), tolerance)
    if as_json:
        typer.echo(found.model_dump_json())
    else:
        low, high = found.lost_interval
        typer.echo(visible(found.sentence))
        typer.echo(
            f"{found.lost} of {found.n} samples were lost (95% interval {low:.1%} to {high:.1%}), "
            f"{found.won} won"
        )
    on_github(f"baseline {against}", found.sentence, shut=found.exit_code != 0, quiet=as_json)
    raise typer.Exit(found.exit_code)
