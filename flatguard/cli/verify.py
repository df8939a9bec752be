"""`flatguard verify`: check somebody's claim of a robust accuracy."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flatguard.cli import options
from flatguard.cli.options import takes
from flatguard.errors import UsageError
from flatguard.request import EvaluationRequest, make_request

if TYPE_CHECKING:
    from flatguard.runs.run import Run

_CLAIM = "Claim"


@takes(EvaluationRequest.model_fields, model=None, attack=None)
def command(
    ctx: typer.Context,
    *,
    claim: Annotated[
        str,
        typer.Option(help="The claimed robust accuracy: 0.905 or 90.5%.", rich_help_panel=_CLAIM),
    ],
    claim_clean: Annotated[
        str | None,
        typer.Option(help="The claimed clean accuracy.", rich_help_panel=_CLAIM),
    ] = None,
    claim_images: Annotated[
        int | None,
        typer.Option(
            help="On how many images it was made; by default as many as there are examples for.",
            rich_help_panel=_CLAIM,
        ),
    ] = None,
    examples: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The claimer's adversarial examples: .pt, .npz, .npy or .safetensors.",
            rich_help_panel=_CLAIM,
        ),
    ] = None,
    indices: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The number of each example's image; by default its place, or the nearest image.",
            rich_help_panel=_CLAIM,
        ),
    ] = None,
    run: Annotated[
        str | None,
        typer.Option(
            metavar="RUN",
            help="Judge the claim on this run, without its model.",
            rich_help_panel=_CLAIM,
        ),
    ] = None,
    given: dict[str, Any],
    out: options.Out = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Check a claimed robust accuracy against the model, with or without the claimer's examples.

    The examples are judged again: the budget, [0, 1], which image each belongs to, and whether it
    fools the model. The checks attack what survives them. Without examples, APGD takes their place;
    --attack names another attack.

    Exit code 0: reproduced; 1: not reproduced, or refuted (the word is printed); 3: undecided.
    """
    from flatguard.cli.progress import watching
    from flatguard.runs.naming import default_folder
    from flatguard.runs.run import load_run
    from flatguard.verification import verify, verify_run

    if run is not None:
        _check_alone(ctx)
        opened = load_run(run)
        with watching(quiet, as_json) as watcher:
            answer = verify_run(
                opened, claim, claim_clean=claim_clean, claim_images=claim_images, progress=watcher
            )
        _end(opened, answer.exit_code, as_json)
    if given["model"] is None:
        raise UsageError("--model is needed, or the --run that the claim is judged on")
    fields = dict(given)
    data, model, attack = (fields.pop(name) for name in ("dataset", "model", "attack"))
    folder = out or str(default_folder(make_request(model=model, attack=attack or "claim")))
    with watching(quiet, as_json) as watcher:
        answer = verify(
            model, claim, examples=examples, indices=indices, claim_clean=claim_clean,
            claim_images=claim_images, attack=attack, data=data, out=folder, progress=watcher,
            command=sys.argv, **fields,
        )  # fmt: skip
    _end(load_run(folder), answer.exit_code, as_json)


def _check_alone(ctx: typer.Context) -> None:
    """Refuse options that the folder of --run answers.

    Raises:
        UsageError: names the first of them.
    """
    allowed = {"claim", "claim_clean", "claim_images", "run", "as_json", "quiet"}
    for parameter in ctx.command.params:
        name = parameter.name or ""
        if name not in allowed and options.is_typed(ctx, name):
            raise UsageError(
                f"{parameter.opts[0]} is answered by the folder of --run; leave it out"
            )


def _end(run: Run, code: int, as_json: bool) -> None:
    """Print the run with its answer, and exit with the answer's code."""
    if as_json:
        typer.echo(json.dumps({**run.summary, "exit_code": code}))
    else:
        from flatguard.checks.verdict import verdict_of
        from flatguard.cli.answer import show

        show(run, verdict_of(run))
    raise typer.Exit(code)
