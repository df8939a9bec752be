"""`flatguard union`: runs under several threats as one verdict."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from flatguard.cli.options import Json
from flatguard.errors import UsageError

if TYPE_CHECKING:
    from flatguard.gate.config import Config
    from flatguard.reporting.union import Union


def command(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="Run folders.")],
    out: Annotated[Path, typer.Option(help="The folder of union.json, .html and .csv.")],
    as_json: Json = False,
) -> None:
    """Judge several runs of one model on the same samples, each under a threat of its own.

    A sample is robust under the union if it is robust in every run. `flatguard evaluate --norm
    Linf,L2 --eps 8/255,0.5` makes the runs as well.

    Exit code: the worst of all verdicts, 1 before 3 before 0.
    """
    from flatguard.reporting.union import unite
    from flatguard.runs.run import load_run

    end(unite([load_run(run) for run in runs], out), out, as_json)


def is_wanted(fields: Mapping[str, Any]) -> bool:
    """Whether `--norm` lists several norms."""
    return "," in (fields["norm"] or "")


def refuse_one_norm_settings(config: Config, shard: str | None) -> None:
    """Refuse what holds for one norm only.

    Raises:
        UsageError: a shard, or a config's thresholds.
    """
    if shard is not None:
        raise UsageError(
            "--shard takes one norm: attack and merge each by itself, then unite the runs with "
            "flatguard union"
        )
    if config.gate is not None:
        raise UsageError(
            "--config: its thresholds hold for one norm, and --norm lists several; evaluate each "
            "norm with a config of its own"
        )


def evaluate(fields: Mapping[str, Any], **settings: Any) -> tuple[Union, Path]:
    """The union of the threats that `--norm` and `--eps` list, and its folder."""
    from flatguard.threats import evaluate_union, threats_of

    rest = dict(fields)
    model = rest.pop("model")
    threats = threats_of(rest.pop("norm"), rest.pop("eps"), rest.pop("attack"))
    return evaluate_union(model, threats, **settings, **rest)


def end(union: Union, folder: Path, as_json: bool) -> NoReturn:
    """Print the union's verdict, and exit with its code."""
    if as_json:
        typer.echo(union.model_dump_json())
    else:
        _show(union, folder)
    raise typer.Exit(union.exit_code)


def _show(union: Union, folder: Path) -> None:
    from rich.console import Console
    from rich.text import Text

    from flatguard.cli.answer import COLOURS
    from flatguard.reporting.text import visible
    from flatguard.reporting.union import PAGE

    console = Console(soft_wrap=True, highlight=False)
    console.print()
    width = max(len(one.threat) for one in union.members) + 2
    for one in union.members:
        console.print(
            Text(f"{one.threat:<{width}}")
            + Text(f"{one.verdict:<15}", style=COLOURS[one.verdict])
            + Text(
                f"robust {one.robust_accuracy:.1%}, corrected {one.corrected_robust_accuracy:.1%}; "
                f"{one.only} fall to it alone"
            )
        )
    word, _, rest = visible(union.sentence).partition(":")
    low, high = union.corrected_interval
    console.print()
    console.print(Text(word, style=f"bold {COLOURS[union.verdict]}") + Text(f":{rest}"))
    console.print(
        f"corrected robust accuracy under all  {union.corrected_robust_accuracy:.1%}  "
        f"(95% interval {low:.1%} to {high:.1%})"
    )
    console.print(visible(f"\n{folder / PAGE}"), markup=False)
