"""`flatguard resume`: finish an interrupted run, and judge it."""

from __future__ import annotations

from typing import Annotated, Any, NoReturn

import typer

from flatguard.cli import options
from flatguard.cli.options import Executing, takes
from flatguard.errors import UsageError
from flatguard.request import EvaluationRequest, option_name

FIELDS = ("allow_code", "detector", "max_failures", "log_to")
"""What a person says anew of a request; everything else is in the run's folder."""


@takes(FIELDS)
@takes(Executing.model_fields, of=Executing, into="executing")
def command(
    run: Annotated[str, typer.Argument(help="A run folder, or s3://bucket/run.")],
    *,
    given: dict[str, Any],
    executing: dict[str, Any],
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Attack the blocks and run the checks that a run lacks, and judge it.

    The evidence is the same, byte for byte, as if the run had never been interrupted. Where the
    run's request names code, such as --arch, it runs only with --allow-code: a run folder may come
    from anybody.

    Exit codes are those of `flatguard evaluate`.
    """
    resume_run(run, given, executing, as_json, quiet)


def _resume_prompts(
    folder: str, given: dict[str, Any], executing: dict[str, Any], as_json: bool, quiet: bool
) -> NoReturn:
    from flatguard.cli import prompts
    from flatguard.cli.progress import watching
    from flatguard.prompts import resume_prompts

    for model, values in ((EvaluationRequest, given), (Executing, executing)):
        for name, value in values.items():
            if value != model.model_fields[name].default:
                raise UsageError(
                    f"{option_name(name, model)} belongs to a run on images, and {folder} "
                    "is one on prompts; leave it out"
                )
    with watching(quiet, as_json) as watcher:
        run = resume_prompts(folder, progress=watcher)
    prompts.end(run, as_json)


def resume_run(
    folder: str, given: dict[str, Any], executing: dict[str, Any], as_json: bool, quiet: bool
) -> NoReturn:
    """Resume a run, print the result, and exit with its code."""
    from flatguard.cli.gated import Chosen, finish
    from flatguard.cli.progress import watching
    from flatguard.evaluation import resume
    from flatguard.gate.config import Config
    from flatguard.runs.prompt_run import is_prompt_run

    if is_prompt_run(folder):
        _resume_prompts(folder, given, executing, as_json, quiet)
    executor, shard = options.executor_of(executing), executing["shard"]
    with watching(quiet, as_json) as watcher:
        run = resume(folder, **given, executor=executor, shard=shard, progress=watcher)
    finish(run, Chosen(folder, {}, Config()), shard, as_json)


def check_alone(ctx: typer.Context) -> None:
    """Refuse options of `evaluate` that the folder of `--resume` answers.

    Raises:
        UsageError: names the first of them.
    """
    allowed = {*FIELDS, *Executing.model_fields, "resumed", "as_json", "quiet"}
    for parameter in ctx.command.params:
        name = parameter.name or ""
        if name not in allowed and options.is_typed(ctx, name):
            option = parameter.opts[0]
            raise UsageError(f"{option} is answered by the folder of --resume; leave it out")
