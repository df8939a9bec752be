"""Configs on the command line: what they say before a run, and what their gate says after it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, NoReturn

import typer

from flatguard.checks.verdict import Verdict, verdict_of
from flatguard.cli.options import is_typed
from flatguard.errors import UsageError
from flatguard.gate.config import Config, load_config
from flatguard.gate.github import Error, announce, errors_of, run_summary
from flatguard.gate.outcome import exit_code, outcomes
from flatguard.reporting.markdown import escape_markdown
from flatguard.runs.run import Run


@dataclass(frozen=True)
class Chosen:
    """What is evaluated, and the config that it comes from.

    Attributes:
        title: for summaries.
        fields: of the request.
        config: the config; an empty one if none was named.
    """

    title: str
    fields: dict[str, Any]
    config: Config


def configured(ctx: typer.Context, name: str | None, fields: dict[str, Any]) -> Chosen:
    """The options with what a config says in place of those that were not typed.

    Raises:
        UsageError: neither names a model or an attack, or the config is wrong.
        UntrustedCodeError: the config names code, and nobody typed --allow-code.
    """
    config = Config() if name is None else load_config(name)
    if not fields["allow_code"]:
        unless = {"arch": None} if is_typed(ctx, "arch") else {}
        config.model_copy(update=unless).refuse_code(str(name))
    if config.gate is not None and is_typed(ctx, "tolerance"):
        config = config.with_(max_overestimate=fields["tolerance"])
    if config.gate is not None and is_typed(ctx, "detector"):
        config = config.with_(detector=fields["detector"])
    config.check_detector()
    merged = dict(fields)
    for key, value in config.arguments().items():
        if key == "attack_args":
            merged[key] = {**value, **fields[key]}
        elif not is_typed(ctx, key):
            merged[key] = value
    if is_typed(ctx, "attack") and config.attack not in (None, fields["attack"]):
        merged["attack_args"] = fields["attack_args"]  # the config's belong to another attack
    for needed in ("model", "attack"):
        if merged[needed] is None:
            where = "" if name is None else f", or a key `{needed}` in {name}"
            raise UsageError(f"--{needed} is needed{where}")
    return Chosen(name or str(merged["model"]), merged, config)


def finish(run: Run, chosen: Chosen, shard: str | None, as_json: bool) -> NoReturn:
    """Print the result of a run or a shard, and exit with its code."""
    if shard is not None:
        done, planned = len(run.blocks), len(run.manifest.blocks)
        typer.echo(f"shard {shard}: {done} of {planned} blocks are in {run.storage}")
        raise typer.Exit(0)
    verdict = verdict_of(run)
    if as_json:
        typer.echo(json.dumps({**run.summary, **_gate_facts(run, verdict, chosen)}))
    else:
        from flatguard.cli.answer import show

        show(run, verdict)
    raise typer.Exit(_conclude(run, verdict, chosen, quiet=as_json))


def _conclude(run: Run, verdict: Verdict, chosen: Chosen, quiet: bool) -> int:
    """Report what the config's gate says, to a person and to GitHub; the exit code."""
    gate = chosen.config.gate
    found = outcomes(run, verdict, gate) if gate is not None else []
    if not quiet and found:
        shut = [outcome for outcome in found if outcome.shut]
        typer.echo(f"\ngate of {chosen.title}: {'shut' if shut else 'open'}")
        for outcome in shut:
            typer.echo(f"{outcome.label} {outcome.text}")
    errors = errors_of(chosen.title, found)
    if not found and verdict.exit_code:
        errors = [Error(chosen.title, verdict.sentence)]
    for line in announce(run_summary(chosen.title, run, verdict, found), errors):
        typer.echo(line, err=quiet)
    return exit_code(found) if found else verdict.exit_code


def _gate_facts(run: Run, verdict: Verdict, chosen: Chosen) -> dict[str, Any]:
    """What a program reads beside the summary, of a config; `gate` is None without thresholds."""
    if not chosen.config.given():
        return {}
    gate = chosen.config.gate
    found = outcomes(run, verdict, gate) if gate is not None else []
    told = [{"label": o.label, "status": o.status, "headline": o.headline} for o in found]
    code = exit_code(found) if found else verdict.exit_code
    return {"complete": run.complete, "gate": told if found else None, "exit_code": code}


def on_github(title: str, sentence: str, *, shut: bool, quiet: bool) -> None:
    """Say one sentence to GitHub, as an error if it shuts the gate."""
    errors = [Error(title, sentence)] if shut else []
    for line in announce(f"### {escape_markdown(title)}\n\n{escape_markdown(sentence)}", errors):
        typer.echo(line, err=quiet)
