"""Language models at `flatguard evaluate`, `resume` and `report`: attacks on prompts."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import typer

from flatguard.cli.options import is_typed
from flatguard.errors import UsageError
from flatguard.prompt_request import PromptOptions, PromptRequest, paired
from flatguard.request import option_name

if TYPE_CHECKING:
    from flatguard.execution.progress import ProgressReporter
    from flatguard.reporting.prompt_report import PromptReport
    from flatguard.runs.prompt_run import PromptRun

_SHARED = {"out", "as_json", "quiet"}


def is_wanted(asked: Mapping[str, Any], fields: Mapping[str, Any]) -> bool:
    """Whether the options are those of an attack on prompts.

    Raises:
        UsageError: some are, but there is no prompt and no such attack.
    """
    from flatguard.attacks.prompt_attack import is_prompt_attack

    if is_prompt_attack(fields["attack"] or "") or asked["prompt"] or asked["prompts"]:
        return True
    for name, value in asked.items():
        if value not in (None, ()):
            raise UsageError(
                f"{option_name(name, PromptOptions)} belongs to an attack on prompts: give "
                "--prompt and --target too, or leave it out"
            )
    return False


def evaluate(
    ctx: typer.Context,
    fields: Mapping[str, Any],
    asked: Mapping[str, Any],
    *,
    out: str | None,
    progress: ProgressReporter,
) -> PromptRun:
    """Attack the prompts that the options name.

    Raises:
        UsageError: an option that belongs to images, or no model, prompt or target.
    """
    _refuse_options_of_images(ctx)
    if fields["model"] is None:
        raise UsageError("--model is needed")
    from flatguard.data.prompt_file import read_prompts
    from flatguard.prompts import evaluate_prompts

    if asked["prompts"] is not None:
        if asked["prompt"] or asked["target"]:
            raise UsageError("--prompts has prompts and targets: leave --prompt and --target out")
        pairs = read_prompts(asked["prompts"])
    else:
        pairs = [(one.prompt, one.target) for one in paired(asked["prompt"], asked["target"])]
    own = {
        name: fields[name] for name in PromptRequest.model_fields if fields.get(name) is not None
    }
    own |= {name: asked[name] for name in ("steps", "generations") if asked[name] is not None}
    model = own.pop("model")
    return evaluate_prompts(
        model, pairs, out=out, progress=progress, command=sys.argv, **own
    )  # fmt: skip


def _refuse_options_of_images(ctx: typer.Context) -> None:
    allowed = {*PromptRequest.model_fields, *PromptOptions.model_fields, *_SHARED}
    for parameter in ctx.command.params:
        name = parameter.name or ""
        if name not in allowed and is_typed(ctx, name):
            raise UsageError(
                f"{parameter.opts[0]} belongs to an attack on images; leave it out where prompts "
                "are attacked"
            )


def end(run: PromptRun, as_json: bool) -> NoReturn:
    """Print the verdict of a run on prompts, and exit with its code."""
    from flatguard.reporting.prompt_report import PAGE, prompt_report

    report = prompt_report(run)
    if as_json:
        typer.echo(report.model_dump_json())
    else:
        _show(report, run.path / PAGE)
    raise typer.Exit(report.verdict.exit_code)


def _show(report: PromptReport, page: Path) -> None:
    from rich.console import Console
    from rich.text import Text

    from flatguard.checks.prompt_verdict import FATES
    from flatguard.cli.answer import COLOURS
    from flatguard.reporting.prompt_page import verdict_lines
    from flatguard.reporting.text import visible

    console = Console(soft_wrap=True, highlight=False)
    console.print()
    for number, path in enumerate(report.paths, start=1):
        finding = report.verdict.findings[number - 1]
        console.print(
            f"prompt {number}: loss {path.loss[0]:.3f} → {path.loss[-1]:.3f}; log κ "
            f"{path.log_kappa[0]:.3f}, peak {path.log_kappa[path.peak]:.3f} at step {path.peak}, "
            f"last {path.log_kappa[-1]:.3f}; {FATES[finding.fate]}",
            markup=False,
        )
        if finding.step is not None:
            suffix = visible(repr(path.suffixes[finding.step]))
            console.print(f"  suffix of step {finding.step}: {suffix}", markup=False)
    word, _, rest = visible(report.verdict.sentence).partition(":")
    console.print()
    console.print(Text(word, style=f"bold {COLOURS[report.verdict.verdict]}") + Text(f":{rest}"))
    for line in verdict_lines(report.verdict):
        console.print(line, markup=False)
    console.print(visible(f"\n{page}"), markup=False)
