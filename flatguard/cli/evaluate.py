"""`flatguard evaluate`: attack a model, record the attack, and judge the robust accuracy."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from flatguard.cli import options, prompts, resume, union
from flatguard.cli.options import Executing, takes
from flatguard.prompt_request import PromptOptions
from flatguard.request import EvaluationRequest


@takes(EvaluationRequest.model_fields, model=None, attack=None)
@takes(PromptOptions.model_fields, of=PromptOptions, into="asked")
@takes(Executing.model_fields, of=Executing, into="executing")
def command(
    ctx: typer.Context,
    *,
    config: Annotated[
        str | None,
        typer.Option(
            metavar="NAME_OR_PATH",
            help="A YAML file, or a name that `flatguard configs` lists; other options override "
            "it.",
        ),
    ] = None,
    given: dict[str, Any],
    asked: dict[str, Any],
    executing: dict[str, Any],
    out: options.Out = None,
    resumed: Annotated[
        str | None,
        typer.Option("--resume", metavar="RUN", help="The same as `flatguard resume RUN`."),
    ] = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Attack a model, record the geometry of every call, and judge the robust accuracy.

    Several norms, `--norm Linf,L2 --eps 8/255,0.5`, are a run each and one verdict on their union.

    A language model is attacked on its prompts: --model smollm2 --attack gcg --prompt ... --target
    ...; the verdict says how many of the attack's successes hold when sent as text.

    A sample counts as robust if the model classifies it correctly, both clean and under the
    attack. Robust accuracy is the share of such samples; it is measured again on the returned
    examples, within the budget. The verdict says whether the evidence supports the number.

    Exit code 0: the evidence supports it; 1: masked, or overestimated beyond the tolerance; 3:
    inconclusive. Where the config has thresholds, they decide; with --json they are under `gate`.
    Where a budget is spent before the first block of samples, there is no run: stdout stays empty,
    stderr says so in one line, and the exit code is 3. A shard is not judged: exit code 0.
    """
    if resumed is not None:
        resume.check_alone(ctx)
        kept = {name: given[name] for name in resume.FIELDS}
        resume.resume_run(resumed, kept, executing, as_json, quiet)
    from flatguard.cli.gated import configured, finish
    from flatguard.cli.progress import watching
    from flatguard.evaluation import evaluate

    if prompts.is_wanted(asked, given):
        with watching(quiet, as_json) as watcher:
            found_prompts = prompts.evaluate(ctx, given, asked, out=out, progress=watcher)
        prompts.end(found_prompts, as_json)
    executor, shard = options.executor_of(executing), executing["shard"]
    chosen = configured(ctx, config, given)
    fields = dict(chosen.fields)
    data = fields.pop("dataset")
    if union.is_wanted(fields):
        union.refuse_one_norm_settings(chosen.config, shard)
        with watching(quiet, as_json) as watcher:
            found = union.evaluate(
                fields, data=data, executor=executor, out=out, progress=watcher, command=sys.argv
            )
        union.end(*found, as_json)
    with watching(quiet, as_json) as watcher:
        run = evaluate(
            **fields, data=data, executor=executor, shard=shard, out=out, progress=watcher,
            command=sys.argv,
        )  # fmt: skip
    finish(run, chosen, shard, as_json)
