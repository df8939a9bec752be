"""`flatguard geometry robust-flatness`: Table 1 of Stutz et al. for the user's own checkpoints."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flatguard.cli import options

if TYPE_CHECKING:
    from flatguard.studies.stutz.checkpoint import Checkpoint

NAME = "robust-flatness.json"
Models = Annotated[
    list[str],
    typer.Argument(metavar="CKPT...", help="Checkpoints: epochs of a training run in one folder."),
]


def command(
    models: Models,
    out: Annotated[Path, typer.Option(help="Where the runs are kept; a stopped one goes on.")],
    arch: options.Arch = None,
    mean: options.Mean = None,
    std: options.Std = None,
    allow_code: options.AllowCode = False,
    dataset: options.DatasetName = None,
    data_dir: options.DataDir = Path("data"),
    training: Annotated[
        str | None, typer.Option(help="Training samples, for the gap and Figure 7.")
    ] = None,
    held_out: Annotated[
        str | None, typer.Option(help="Samples that choose the epoch to stop at.")
    ] = None,
    n_examples: options.Count = None,
    attack: Annotated[str, typer.Option(help="For the robust error.")] = "standard",
    attack_arg: options.AttackArg = None,
    norm: options.Norm = None,
    eps: options.Eps = None,
    xi: Annotated[float, typer.Option(help="Relative radius of the average case.")] = 0.5,
    directions: Annotated[int, typer.Option(min=1, help="Random perturbed models.")] = 10,
    worst_xi: Annotated[float, typer.Option(help="Relative radius of the worst case.")] = 0.003,
    worst_restarts: Annotated[
        int, typer.Option(min=0, help="Ascents of the worst case; 0 leaves it out.")
    ] = 10,
    steps: Annotated[int, typer.Option(min=1, help="Of PGD, for robust losses.")] = 20,
    restarts: Annotated[int, typer.Option(min=1, help="Of PGD, for robust losses.")] = 10,
    batch_size: options.BatchSize = None,
    device: options.Device = None,
    seed: options.Seed = 0,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Robust loss, its flatness in weight space, robust error, train/test gap, early stopping.

    Each checkpoint becomes a run folder under --out: the attack's evidence, and the losses at
    every perturbed model as a probe. `flatguard reproduce stutz-fig1 --runs OUT` and its siblings
    read them; `flatguard audit RUN --checks fast` says whether a robust error can be believed.
    """
    from flatguard.checks.weight_space.flatness import Neighbourhood
    from flatguard.cli.progress import watching
    from flatguard.data import load_dataset
    from flatguard.evaluation import resolve
    from flatguard.runs.json_files import write_text
    from flatguard.studies.stutz.checkpoint import checkpoint_of
    from flatguard.studies.stutz.measure import Plan, measure_checkpoint
    from flatguard.studies.stutz.table import table

    parts = [
        None if name is None else load_dataset(name, data_dir=data_dir)
        for name in (training, held_out)
    ]
    around = Neighbourhood(xi, directions, worst_xi, worst_restarts=worst_restarts)
    plan = Plan(around, steps, restarts, *parts)
    asked = options.settings(locals())
    checkpoints = []
    with watching(quiet, as_json) as watcher:
        for number, model in enumerate(models, start=1):
            context = resolve(model, attack, data=dataset, **asked)
            watcher.log(f"[{number}/{len(models)}] {model}")
            run = measure_checkpoint(context, out, plan, watcher, sys.argv)
            checkpoints.append(checkpoint_of(run))
    rows = [row.model_dump() for row in table(checkpoints)]
    answer = {
        "checkpoints": [checkpoint.model_dump() for checkpoint in checkpoints],
        "table": rows,
    }
    write_text(out / NAME, json.dumps(answer, indent=1, allow_nan=False))
    if as_json:
        typer.echo(json.dumps(answer, allow_nan=False))
    else:
        _show(checkpoints)
        typer.echo(f"\n{out / NAME}")


def _show(checkpoints: Sequence[Checkpoint]) -> None:
    from rich.console import Console
    from rich.table import Table

    from flatguard.reporting.text import visible
    from flatguard.studies.stutz.table import table

    shown = Table(box=None, padding=(0, 2, 0, 0))
    for title in ("run", "RErr", "train", "RLoss", "gap", "flatness", "worst", "early stop"):
        left = title == "run"
        shown.add_column(title, justify="left" if left else "right", overflow="fold")
    for row in table(checkpoints):
        last, stop = row.last, row.stopped
        shown.add_row(
            visible(last.run),
            f"{last.rerr:.1%}",
            _said(last.training_rerr, ".1%"),
            _said(last.rloss),
            _said(last.gap),
            _said(last.flatness),
            _said(last.worst, ".3f"),
            "-" if stop is None else f"{stop.rerr:.1%} (epoch {stop.epoch})",
        )
    Console(soft_wrap=True).print(shown)


def _said(value: float | None, form: str = ".2f") -> str:
    return "-" if value is None else format(value, form)
