"""`flatguard audit`: judge a run again from its folder."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from flatguard.cli.options import (
    AllowCode,
    Checks,
    Detector,
    Json,
    Quiet,
    Surrogate,
    Tolerance,
)


def command(
    run: Annotated[str, typer.Argument(help="A run folder.")],
    checks: Checks = "none",
    surrogate: Surrogate = None,
    tolerance: Tolerance = None,
    detector: Detector = None,
    allow_code: AllowCode = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Judge a run again, without its model; --checks runs the probes that are still missing.

    Probes load the model again. Where the run's request names code for that, such as --arch, it is
    run only with --allow-code: a run folder may be anybody's.

    Exit code 0: the number may be believed; 1: masked, or overestimated beyond the tolerance;
    3: inconclusive.
    """
    from flatguard.cli.progress import watching
    from flatguard.evaluation import audit
    from flatguard.runs.run import load_run

    opened = load_run(run)
    with watching(quiet, as_json) as watcher:
        verdict = audit(
            opened, checks=checks, surrogates=surrogate or (), tolerance=tolerance,
            detector=detector, allow_code=allow_code, progress=watcher,
        )  # fmt: skip
    if as_json:
        typer.echo(json.dumps(opened.summary))
    else:
        from flatguard.cli.answer import show

        show(opened, verdict)
    raise typer.Exit(verdict.exit_code)
