"""Configs on the command line: what they say before a run, and what their gate says after it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import typer

from flatguard.checks.verdict import Verdict
from flatguard.errors import UsageError
from flatguard.gate.config import Config, load_config
from flatguard.gate.github import Error, announce, errors_of, run_summary
from flatguard.gate.outcome import exit_code, outcomes
from flatguard.reporting.markdown import escape_markdown
from flatguard.runs.run import Run

OPTIONS = {
    "attack_args": "attack_arg", "surrogates": "surrogate", "losses": "loss", "data": "dataset",
}  # fmt: skip
"""Options whose parameter is not called as the key is."""


@dataclass(frozen=True)
class Chosen:
    """What is evaluated, and the config that it comes from.

    Attributes:
        title: for summaries.
        fields: as `evaluate` takes them.
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
        unless = {"arch": None} if _typed(ctx, "arch") else {}
        config.model_copy(update=unless).refuse_code(str(name))
    if config.gate is not None and _typed(ctx, "tolerance"):
        config = config.with_(max_overestimate=fields["tolerance"])
    if config.gate is not None and _typed(ctx, "detector"):
        config = config.with_(detector=fields["detector"])
    config.check_detector()
    merged = dict(fields)
    for key, value in config.arguments().items():
        if key == "attack_args":
            merged[key] = {**value, **fields[key]}
        elif not _typed(ctx, OPTIONS.get(key, key)):
            merged[key] = value
    if _typed(ctx, "attack") and config.attack not in (None, fields["attack"]):
        merged["attack_args"] = fields["attack_args"]  # the config's belong to another attack
    for needed in ("model", "attack"):
        if merged[needed] is None:
            where = "" if name is None else f", or a key `{needed}` in {name}"
            raise UsageError(f"--{needed} is needed{where}")
    return Chosen(name or str(merged["model"]), merged, config)


def conclude(run: Run, verdict: Verdict, chosen: Chosen, quiet: bool) -> int:
    """Say what the config's gate says, to a person and to GitHub; the exit code."""
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


def gate_facts(run: Run, verdict: Verdict, chosen: Chosen) -> dict[str, Any]:
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


def _typed(ctx: typer.Context, parameter: str) -> bool:
    source = ctx.get_parameter_source(parameter)
    return source is not None and source.name != "DEFAULT"
