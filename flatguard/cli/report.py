"""`flatguard report`: draw the reports of runs again, without their models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="Run folders.")],
    model_card: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Also write the results to this Hugging Face model card, such as README.md; all "
            "else in it stays.",
        ),
    ] = None,
) -> None:
    """Draw report.html, .json, .junit.xml, .sarif and .md in each run's folder.

    A run on the prompts of a language model has the first two.
    """
    from flatguard.errors import UsageError
    from flatguard.integrations.model_card import update_model_card
    from flatguard.reporting.prompt_report import PAGE, write_prompt_report
    from flatguard.reporting.report import write_report
    from flatguard.runs.prompt_run import is_prompt_run, load_prompt_run
    from flatguard.runs.run import load_run

    on_prompts = next((path for path in runs if is_prompt_run(path)), None)
    if model_card is not None and on_prompts is not None:
        raise UsageError(f"--model-card takes runs on images, and {on_prompts} is one on prompts")
    for path in runs:
        if is_prompt_run(path):
            write_prompt_report(load_prompt_run(path))
            typer.echo(Path(path) / PAGE)
        else:
            typer.echo(write_report(load_run(path)).html)
    if model_card is not None:
        update_model_card([load_run(path) for path in runs], model_card)
        typer.echo(model_card)
