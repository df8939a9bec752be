"""`flatguard report`: draw the reports of runs again, without their models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flatguard.errors import UsageError


def command(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="Run folders.")],
    pack: Annotated[
        str | None,
        typer.Option(metavar="FOLDER", help="Write an audit pack of one run to this new folder."),
    ] = None,
    sign: Annotated[
        Path | None,
        typer.Option(metavar="KEY", help="Sign the pack with this Ed25519 private key in PEM."),
    ] = None,
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

    A run on the prompts of a language model has the first two. With --pack, write an audit pack
    instead: the report, a summary, the findings by control (HTML and PDF), a CycloneDX ML-BOM and a
    manifest of hashes, which `flatguard verify-pack FOLDER` checks.
    """
    from flatguard.integrations.model_card import update_model_card
    from flatguard.runs.prompt_run import is_prompt_run
    from flatguard.runs.run import load_run

    if sign is not None and pack is None:
        raise UsageError("--sign signs an audit pack: add --pack FOLDER")
    on_prompts = next((path for path in runs if is_prompt_run(path)), None)
    option = "--model-card" if model_card is not None else "--pack" if pack is not None else None
    if option is not None and on_prompts is not None:
        raise UsageError(f"{option} takes runs on images, and {on_prompts} is one on prompts")
    if pack is not None:
        _write_pack(runs, pack, sign)
    else:
        _draw(runs)
    if model_card is not None:
        update_model_card([load_run(path) for path in runs], model_card)
        typer.echo(model_card)


def _draw(runs: list[str]) -> None:
    from flatguard.reporting.prompt_report import PAGE, write_prompt_report
    from flatguard.reporting.report import write_report
    from flatguard.runs.prompt_run import is_prompt_run, load_prompt_run
    from flatguard.runs.run import load_run

    for path in runs:
        if is_prompt_run(path):
            write_prompt_report(load_prompt_run(path))
            typer.echo(Path(path) / PAGE)
        else:
            typer.echo(write_report(load_run(path)).html)


def _write_pack(runs: list[str], folder: str, key: Path | None) -> None:
    from flatguard.pack.writing import write_pack
    from flatguard.runs.run import load_run

    if len(runs) != 1:
        raise UsageError(f"--pack is about one run: expected one RUN, got {len(runs)}")
    if "://" in folder:
        raise UsageError(f"--pack {folder}: expected a folder on a disk, not an address")
    write_pack(load_run(runs[0]), Path(folder), key, lambda: _passphrase(key))
    typer.echo(folder)


def _passphrase(key: Path | None) -> str:
    """Ask the person at the terminal.

    Raises:
        UsageError: nobody is there to ask.
    """
    import sys

    if not sys.stdin.isatty():
        raise UsageError(f"{key} is encrypted: its passphrase can only be typed at a terminal")
    return str(typer.prompt("Passphrase of the key", hide_input=True, err=True))
