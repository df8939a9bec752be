"""`flatguard geometry robust-flatness`: Table 1 of Stutz et al. for the user's own checkpoints."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import BaseModel, Field

from flatguard.cli import options
from flatguard.cli.options import takes
from flatguard.request import Option, validated

if TYPE_CHECKING:
    from flatguard.studies.stutz.checkpoint import Checkpoint

NAME = "robust-flatness.json"
_COLUMNS = (
    "Each row is the last checkpoint of a training run. RErr: share of test images that are wrong "
    "under the attack; train: the same on training images, under PGD. RLoss: mean loss under the "
    "attack; gap: RLoss on test minus training images. flatness: how much RLoss rises where the "
    "weights change at random; worst: for the worst change that was found. Lower is flatter. early "
    "stop: RErr of the epoch with the lowest error on the held-out images. -: not measured."
)
"""What the columns of the table mean."""
Models = Annotated[
    list[str],
    typer.Argument(metavar="CKPT...", help="Checkpoints: epochs of a training run in one folder."),
]


class _Neighbourhood(BaseModel):
    """How a checkpoint's weights are perturbed, and how robust losses are searched there."""

    xi: Annotated[
        float,
        Field(description="Random changes of the weights, as a share of each layer's size."),
        Option("Neighbourhood"),
    ] = 0.5
    directions: Annotated[
        int, Field(ge=1, description="How many random changes are tried."), Option("Neighbourhood")
    ] = 10
    worst_xi: Annotated[
        float, Field(description="The same share, for the worst change."), Option("Neighbourhood")
    ] = 0.003
    worst_restarts: Annotated[
        int,
        Field(ge=0, description="Searches of the worst change; 0 leaves it out."),
        Option("Neighbourhood"),
    ] = 10
    steps: Annotated[
        int, Field(ge=1, description="Steps of PGD, for robust losses."), Option("Neighbourhood")
    ] = 20
    restarts: Annotated[
        int, Field(ge=1, description="Restarts of PGD, for robust losses."), Option("Neighbourhood")
    ] = 10


FIELDS = (
    "arch", "mean", "std", "allow_code", "dataset", "data_dir", "n_examples", "attack",
    "attack_args", "norm", "eps", "batch_size", "device", "seed",
)  # fmt: skip


@takes(FIELDS, attack="standard")
@takes(_Neighbourhood.model_fields, of=_Neighbourhood, into="neighbourhood")
def command(
    models: Models,
    *,
    out: Annotated[Path, typer.Option(help="Where the runs are kept; a stopped one goes on.")],
    given: dict[str, Any],
    training: Annotated[
        str | None,
        typer.Option(help="Training images, for the gap to the test images and for Figure 7."),
    ] = None,
    held_out: Annotated[
        str | None, typer.Option(help="Images that choose the epoch to stop at.")
    ] = None,
    neighbourhood: dict[str, Any],
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Measure how the loss under an attack rises where a checkpoint's weights change (flatness).

    Beside it: robust loss and error, the gap between training and test, and early stopping.

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

    around = validated(_Neighbourhood, neighbourhood)
    parts = [
        None if name is None else load_dataset(name, data_dir=given["data_dir"])
        for name in (training, held_out)
    ]
    perturbed = Neighbourhood(
        around.xi, around.directions, around.worst_xi, worst_restarts=around.worst_restarts
    )
    plan = Plan(perturbed, around.steps, around.restarts, *parts)
    data = given.pop("dataset")
    checkpoints = []
    with watching(quiet, as_json) as watcher:
        for number, model in enumerate(models, start=1):
            context = resolve(model, data=data, **given)
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

    from flatguard.cli.terms import show_terms
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
            _cell(last.training_rerr, ".1%"),
            _cell(last.rloss),
            _cell(last.gap),
            _cell(last.flatness),
            _cell(last.worst, ".3f"),
            "-" if stop is None else f"{stop.rerr:.1%} (epoch {stop.epoch})",
        )
    console = Console(soft_wrap=True, highlight=False)
    console.print(shown)
    console.print(f"\n{_COLUMNS}", markup=False)
    show_terms(console, "flatness in weight space")


def _cell(value: float | None, form: str = ".2f") -> str:
    return "-" if value is None else format(value, form)
