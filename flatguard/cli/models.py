"""`flatguard models`: every model that can be named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def command(
    search: Annotated[str | None, typer.Argument(help="Only names that contain this.")] = None,
    dataset: Annotated[str | None, typer.Option(help="Only cifar10, cifar100 or imagenet.")] = None,
    threat_model: Annotated[
        str | None, typer.Option(help="Only Linf, L2, corruptions or corruptions_3d.")
    ] = None,
    model_dir: Annotated[Path, typer.Option(help="RobustBench's checkpoints.")] = Path("models"),
    as_json: Annotated[bool, typer.Option("--json", help="JSON on stdout.")] = False,
) -> None:
    """List the demo and RobustBench's entries, their defaults, and which are already here."""
    from rich.console import Console
    from rich.table import Table

    from flatguard.environment.requirements import version_of
    from flatguard.errors import EnvironmentProblem
    from flatguard.targets import robustbench

    robustbench.check_choices(dataset, threat_model)
    missing = ""
    try:
        entries = robustbench.entries(dataset, threat_model)
    except EnvironmentProblem as error:
        if dataset is not None or threat_model is not None or version_of("robustbench"):
            raise
        entries, missing = [], str(error)
    wanted = "" if search is None else search.lower()
    rows = [_row(entry, model_dir) for entry in entries if wanted in entry.name.lower()]
    if search in (None, "demo") and dataset is None and threat_model is None:
        demo = {"name": "demo", "dataset": "demo", "threat_model": "Linf", "norm": "Linf"}
        rows.insert(0, demo | {"eps": "8/255", "here": True})
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    table = Table(box=None, padding=(0, 2, 0, 0))
    for title in ("model", "data set", "threat model", "default budget", "here"):
        table.add_column(title)
    for row in rows:
        budget = f"{row['norm']} {row['eps']}" if row["norm"] else "name --norm and --eps"
        table.add_row(
            str(row["name"]), str(row["dataset"]), str(row["threat_model"]), budget,
            "yes" if row["here"] else "",
        )  # fmt: skip
    console = Console(soft_wrap=True)
    console.print(table)
    if missing:
        console.print(f"\n{missing}", markup=False)
    console.print(
        "\nAlso: timm:NAME, torchvision:NAME, or the path of a .safetensors, .pt, .pth or .pt2."
    )


def _row(entry: object, model_dir: Path) -> dict[str, object]:
    from flatguard.targets.robustbench import Entry

    assert isinstance(entry, Entry)
    defaults = entry.defaults()
    here = bool(entry.drive_ids) and all(file.is_file() for file in entry.files(model_dir))
    return {
        "name": entry.name,
        "dataset": entry.dataset,
        "threat_model": entry.threat_model,
        "norm": defaults.norm,
        "eps": defaults.eps,
        "here": here,
    }
