"""`flatguard evaluate --resume`: everything comes from the folder but who does the work."""

from __future__ import annotations

import typer

from flatguard.errors import UsageError
from flatguard.runs.run import Run

STILL_GIVEN = {
    "resume", "detector", "workers", "executor", "address", "shard", "max_failures",
    "allow_code", "as_json", "quiet",
}  # fmt: skip


def check_alone(ctx: typer.Context) -> None:
    """Refuse options that the run's folder answers.

    Raises:
        UsageError: names the first of them.
    """
    for name in ctx.params:
        source = ctx.get_parameter_source(name)
        typed = source is not None and source.name != "DEFAULT"
        if typed and name not in STILL_GIVEN:
            option = name.replace("_", "-")
            raise UsageError(f"--{option} is answered by the folder of --resume; leave it out")


def say_shard(run: Run, shard: str) -> None:
    """What a shard has, and what is next."""
    done, planned = len(run.blocks), len(run.manifest.blocks)
    typer.echo(f"shard {shard}: {done} of {planned} blocks are in {run.storage}")
