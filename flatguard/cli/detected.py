"""The results of `flatguard detect` in the terminal."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import typer
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from flatguard.cli.terms import show_terms
from flatguard.detection.conformal import Bounds
from flatguard.detection.detector_file import SavedDetector
from flatguard.detection.results import AdaptiveAtRadius, AttackResult, DetectionExperiment, Share
from flatguard.environment.system import quoted
from flatguard.errors import UsageError
from flatguard.geometry.measures import measure_in

WIDTH = 112
"""Of the table, in characters; a narrower terminal wraps its lines."""

NO_DEFENCE = "a diagnostic, not a defence"

_COLUMNS = (
    "The others are other detectors on the same images. ↓: low scores are unusual, ↑: high ones. "
    "flags 5%: of the examples that fool the model, the share that is flagged at thresholds that "
    "were set to flag 5% of clean images; flags 1%: at thresholds for 1%. clean 5%, failed 5%: "
    "the share of these clean images, and of the examples that do not fool the model, that is "
    "flagged at the thresholds for 5%. –: nothing to measure."
)


def show_fit(kept: SavedDetector, out: Path) -> None:
    """Print the thresholds, and the result of an attack that knows them."""
    data = kept.data
    if kept.stump:
        folds = ", ".join(f"{fold:.1%}" for fold in kept.stump.folds)
        typer.echo(f"stump in 5 folds       {folds} right; guessing has 50%")
    elif data is not None:
        delta = kept.how.delta
        sure = (
            "on average over calibrations"
            if delta is None
            else f"in all but {delta:.1%} of calibrations"
        )
        typer.echo(
            f"false positives        at most {kept.how.alpha:.1%} of clean images like the "
            f"{data.samples:,} from {data.name} are flagged, {sure}"
        )
    for key, bounds in kept.classes.items():
        name = "not flagged" if key < 0 else f"class {key}, not flagged"
        typer.echo(f"{name:<22} {kept.measure.log_name} {_within(bounds)}")
    found = kept.adaptive
    if found is None:
        typer.echo(
            "adaptive attack        not measured: --adaptive 32 measures how often an attacker who "
            f"knows the thresholds evades them; a detector is {NO_DEFENCE}"
        )
    else:
        low_end, high_end = found.interval
        typer.echo(
            f"adaptive attack        an attacker who knows the thresholds evades them on "
            f"{found.success:.1%} of {found.samples} images within {found.norm} {found.eps:g} "
            f"(95% interval {low_end:.1%} to {high_end:.1%}): a detector is {NO_DEFENCE}"
        )
    typer.echo(f"\nnext: flatguard evaluate ... --detector {quoted(out)}: what it flags in a run")
    typer.echo(f"{out}")


def _within(bounds: Bounds) -> str:
    """The scores that are not flagged."""
    if bounds.lower is None:
        return "of any size" if bounds.upper is None else f"up to {bounds.upper:.2f}"
    if bounds.upper is None:
        return f"from {bounds.lower:.2f} on"
    return f"from {bounds.lower:.2f} to {bounds.upper:.2f}"


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
        typer.echo(f"of them flagged only because their sharpness could not be measured: {missing}")
    typer.echo("a flag is no proof of an attack: a detector also flags some clean images")
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
                f"worst case over {len(worst.attacks)} attacks at {worst.eps}: of the images that "
                f"any of them changed so that the model is wrong, the threshold on log κ flags "
                f"every such change on {_share(caught[0])} at 5% false positives, on "
                f"{_share(caught[1])} at 1%"
            )
    for name, reason in trial.missing.items():
        console.print(f"{name} not measured: {reason}", markup=False)
    for adaptive in trial.adaptive:
        console.print(_adaptive(adaptive), markup=False)
    if not trial.adaptive:
        console.print(
            "adaptive attack not measured: --adaptive 100 measures how often an attacker who knows "
            f"the threshold evades it; a detector is {NO_DEFENCE}"
        )
    console.print(f"\nlog-kappa is flatguard's detector. {_COLUMNS}", markup=False)
    show_terms(console, "log κ", "95% interval", "false positive", "AUROC", "stump")
    console.print(f"\n{out}", markup=False)


def _table(attack: AttackResult) -> Table:
    table = Table(
        title=f"{attack.attack}, {attack.norm} {attack.eps}: it fools the model on "
        f"{attack.successful} images and fails on {attack.failed}; {attack.clean_wrong} were wrong "
        "before",
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
        "flags 5%",
        "flags 1%",
        "clean 5%",
        "failed 5%",
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
        f"adaptive attack within {adaptive.norm} {adaptive.eps}: an attacker who knows the "
        f"threshold makes the model wrong without being flagged on {', on '.join(pieces)}; a "
        f"detector is {NO_DEFENCE}"
    )


def _share(found: Share) -> str:
    if found.share is None:
        return "none of 0"
    low, high = found.interval
    return f"{found.share:.1%} of {found.of} (95% interval {low:.1%} to {high:.1%})"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"
