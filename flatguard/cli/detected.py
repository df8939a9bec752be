"""The results of `flatguard detect` in the terminal."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import typer
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from flatguard.detection.detector_file import SavedDetector
from flatguard.detection.results import AdaptiveAtRadius, AttackResult, DetectionExperiment, Share
from flatguard.errors import UsageError
from flatguard.geometry.measures import measure_in

WIDTH = 112
"""Of the table, in characters; a narrower terminal wraps its lines."""

NO_DEFENCE = "a diagnostic, not a defence"


def show_fit(kept: SavedDetector, out: Path) -> None:
    """Print the thresholds, and the result of an attack that knows them."""
    data = kept.data
    if kept.stump:
        folds = ", ".join(f"{fold:.1%}" for fold in kept.stump.folds)
        typer.echo(f"stump in 5 folds       {folds}")
    elif data is not None:
        sure = (
            "" if kept.how.delta is None else f", in all but {kept.how.delta:.1%} of calibrations"
        )
        typer.echo(
            f"false positive rate    {kept.how.alpha:.1%} of images like the {data.samples:,} from "
            f"{data.name}{sure}"
        )
    for key, bounds in kept.classes.items():
        name = f"{kept.measure.log_name} passes" if key < 0 else f"class {key}"
        low = "any" if bounds.lower is None else f"{bounds.lower:.2f}"
        high = "any" if bounds.upper is None else f"{bounds.upper:.2f}"
        typer.echo(f"{name:<22} {low} to {high}")
    found = kept.adaptive
    if found is None:
        typer.echo(f"adaptive attack        not measured; it is {NO_DEFENCE}: see --adaptive")
    else:
        low_end, high_end = found.interval
        typer.echo(
            f"adaptive attack        {found.success:.1%} of {found.samples} evade it within "
            f"{found.norm} {found.eps:g} (95% interval {low_end:.1%} to {high_end:.1%}): "
            f"{NO_DEFENCE}"
        )
    typer.echo(f"\n{out}")


def write_scores(table: pd.DataFrame, out: Path) -> None:
    """Write a row for each image, in CSV or Parquet."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        if out.suffix == ".csv":
            table.to_csv(out, index=False)
        else:
            table.to_parquet(out, index=False)
    except OSError as error:
        raise UsageError(f"cannot write {out}: {error.strerror}") from error


def show_scores(table: pd.DataFrame, out: Path | None) -> None:
    """Print how many images are flagged."""
    flagged, missing = (
        int(table["flagged"].sum()),
        int(table[measure_in(table.columns).column].isna().sum()),
    )
    typer.echo(f"flagged  {flagged} of {len(table)} images ({flagged / len(table):.1%})")
    if missing:
        typer.echo(f"without a score, and so flagged: {missing}")
    typer.echo(str(out) if out else "--out FILE writes a row for each image")


def show_experiment(trial: DetectionExperiment, out: Path) -> None:
    """Print a table for each attack, the worst case, and the attack that knows the detector."""
    console = Console(highlight=False, width=max(Console().width, WIDTH))
    for attack in trial.attacks:
        console.print(_table(attack))
    for worst in trial.worst:
        if len(worst.attacks) > 1:
            caught = worst.caught["log-kappa"]
            console.print(
                f"worst case over {len(worst.attacks)} attacks at {worst.eps}: log κ catches "
                f"{_share(caught[0])} at 5% false positives, {_share(caught[1])} at 1%"
            )
    for name, reason in trial.missing.items():
        console.print(f"{name} not measured: {reason}", markup=False)
    for adaptive in trial.adaptive:
        console.print(_adaptive(adaptive), markup=False)
    if not trial.adaptive:
        console.print(
            f"adaptive attack not measured; the threshold is {NO_DEFENCE}: --adaptive 100"
        )
    console.print(f"\n{out}", markup=False)


def _table(attack: AttackResult) -> Table:
    table = Table(
        title=f"{attack.attack}, {attack.norm} {attack.eps}: {attack.successful} successful, "
        f"{attack.failed} failed, {attack.clean_wrong} wrong when clean",
        title_justify="left",
        title_style="bold",
        box=SIMPLE,
    )
    table.add_column("detector")
    columns = (
        "AUROC",
        "95% interval",
        "one-sided",
        "stump",
        "TPR 5%",
        "TPR 1%",
        "FPR 5%",
        "failed",
    )
    for column in columns:
        table.add_column(column, justify="right")
    for name, found in attack.detectors.items():
        low, high = found.auroc_interval or (None, None)
        wide = "not measured" if low is None else f"{low:.3f} to {high:.3f}"
        arrow = {"low": " ↓", "high": " ↑", None: ""}[found.direction]
        table.add_row(
            name, _number(found.auroc), wide, _number(found.auroc_one_sided) + arrow,
            _percent(found.stump_accuracy), _percent(found.tpr_at_5_fpr),
            _percent(found.tpr_at_1_fpr), _percent(found.at[0].clean.share),
            _percent(found.at[0].failed.share),
        )  # fmt: skip
    return table


def _adaptive(adaptive: AdaptiveAtRadius) -> str:
    pieces = [f"{_share(r.evaded)} at {r.asked:.0%} false positives" for r in adaptive.results]
    return (
        f"adaptive attack within {adaptive.norm} {adaptive.eps}: wrong and unflagged "
        f"{', '.join(pieces)}: {NO_DEFENCE}"
    )


def _share(found: Share) -> str:
    if found.share is None:
        return "none of 0"
    low, high = found.interval
    return f"{found.share:.1%} ({low:.1%} to {high:.1%})"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"
