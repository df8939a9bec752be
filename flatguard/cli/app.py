"""The `flatguard` command: its commands, its exit codes, its one-line errors.

Exit codes: 0 done; 1 masked, overestimated beyond the tolerance, or an audit pack that was changed;
2 wrong usage or environment; 3 inconclusive; 70 a fault of flatguard itself; 130 interrupted.
"""

from __future__ import annotations

import contextlib
import errno
import io
import sys
import traceback
import warnings
from typing import Annotated, Any

import typer

from flatguard.cli import (
    attacks,
    audit,
    baseline,
    compare,
    configs,
    demo,
    detect,
    doctor,
    evaluate,
    geometry,
    merge,
    models,
    preflight,
    report,
    reproduce,
    resume,
    union,
    verify,
    verify_pack,
)
from flatguard.cli.options import GroupedCommand
from flatguard.environment.offline import keep_offline
from flatguard.environment.requirements import explain, explain_import
from flatguard.errors import FlatguardError, no_room, one_line, ran_out_of_memory, reason_of

INTERRUPTED = 130
INTERNAL = 70
USAGE = 2
OF_OUTPUT = {errno.EPIPE, errno.ENOSPC, errno.EFBIG}
"""A closed pipe, a full disk."""

app = typer.Typer(
    name="flatguard",
    help="Can this robust accuracy be believed?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("demo")(demo.command)
app.command("evaluate", cls=GroupedCommand)(evaluate.command)
app.command("preflight", cls=GroupedCommand)(preflight.command)
app.command("resume", cls=GroupedCommand)(resume.command)
app.command("merge")(merge.command)
app.command("audit", cls=GroupedCommand)(audit.command)
app.command("report")(report.command)
app.command("verify-pack")(verify_pack.command)
app.command("compare")(compare.command)
app.command("union")(union.command)
app.command("verify", cls=GroupedCommand)(verify.command)
app.add_typer(baseline.app, name="baseline")
app.command("reproduce", cls=GroupedCommand)(reproduce.command)
app.add_typer(geometry.app, name="geometry")
app.add_typer(detect.app, name="detect")
app.command("configs")(configs.command)
app.command("doctor")(doctor.command)
app.command("models")(models.command)
app.command("attacks")(attacks.command)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"flatguard {version('flatguard')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Can this robust accuracy be believed?"""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    keep_offline()
    if not sys.warnoptions:  # users cannot act on what other packages deprecate
        for category in (FutureWarning, DeprecationWarning):
            warnings.simplefilter("ignore", category)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # κ and → on a terminal that knows only ASCII
    try:
        result: Any = app(args=arguments, prog_name="flatguard", standalone_mode=False)
        code = result if isinstance(result, int) else 0
    except FlatguardError as error:
        code = error.exit_code
        typer.echo(f"flatguard: {error}", err=True)
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except OSError as error:
        code, line = USAGE, explain_import(error) or reason_of(error)
        if error.filename is None and error.errno in OF_OUTPUT:  # files are named
            line = f"cannot write the output: {error.strerror or error}"
            sys.stdout = io.StringIO()  # the rest of the buffer cannot be written either
        with contextlib.suppress(OSError):
            typer.echo(f"flatguard: {line}", err=True)
    except SystemExit as stop:  # newer typers turn an interrupt into this, rich a closed pipe
        code = INTERRUPTED if stop.code == INTERRUPTED else USAGE
    except Exception as error:
        if not hasattr(error, "format_message"):  # not one of the parser's own
            sys.exit(_unexpected(error))
        code = USAGE
        is_help = type(error).__name__ == "NoArgsIsHelpError"
        typer.echo(f"{'' if is_help else 'flatguard: '}{error.format_message()}", err=True)
    if code == INTERRUPTED:
        typer.echo("flatguard: interrupted; what was recorded is kept", err=True)
    sys.exit(code)


def _unexpected(error: Exception) -> int:
    """One line where the memory or a package is the cause; else a traceback to report."""
    if ran_out_of_memory(error):
        why: str | None = f"the memory is too small: {one_line(error)}"
    else:
        why = no_room(error) or explain(error)
    if why is not None:
        typer.echo(f"flatguard: {why}", err=True)
        return USAGE
    traceback.print_exception(error)
    typer.echo("flatguard: this is a fault of flatguard; please report the lines above", err=True)
    return INTERNAL
