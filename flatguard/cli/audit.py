"""`flatguard audit`: judge a run again from its folder."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from flatguard.cli import options
from flatguard.cli.options import Executing, Json, Quiet, takes


@takes(
    ("allow_code", "checks", "surrogates", "tolerance", "detector", "log_to"),
    checks="none",
    tolerance=None,
)
@takes(("workers", "executor", "address"), of=Executing, into="executing")
def command(
    run: Annotated[str, typer.Argument(help="A run folder.")],
    *,
    given: dict[str, Any],
    executing: dict[str, Any],
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Judge a run again, without its model; --checks runs the checks that are still missing.

    Checks load the model again. Where the run's request names code for that, such as --arch, it
    runs only with --allow-code: a run folder may come from anybody. Without --tolerance the run is
    judged with the tolerance that it was judged with before.

    Exit code 0: the evidence supports the number; 1: masked, or overestimated beyond the tolerance;
    3: inconclusive.
    """
    from flatguard.cli.progress import watching
    from flatguard.evaluation import audit
    from flatguard.runs.run import load_run

    executor = options.executor_of(executing)
    opened = load_run(run)
    with watching(quiet, as_json) as watcher:
        verdict = audit(opened, **given, executor=executor, progress=watcher)
    if as_json:
        typer.echo(json.dumps(opened.summary))
    else:
        from flatguard.cli.answer import show

        show(opened, verdict)
    raise typer.Exit(verdict.exit_code)
