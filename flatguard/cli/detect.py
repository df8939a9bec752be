"""`flatguard detect`: fit a sharpness threshold, use it, compare it with others."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flatguard.cli import options
from flatguard.cli.options import MODEL_AND_DATA, GroupedCommand, takes
from flatguard.errors import DataError, UsageError
from flatguard.request import make_request

if TYPE_CHECKING:
    from flatguard.detection.results import DetectionExperiment

app = typer.Typer(
    help="Flag adversarial examples by a threshold on relative sharpness: a diagnostic, not a "
    "defence.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
DetectorFile = Annotated[
    Path, typer.Option("--detector", metavar="FILE", help="As `flatguard detect fit` wrote it.")
]
Knowing = Annotated[
    int,
    typer.Option(
        help="The number of images for an adaptive attack, which knows the detector; 0 leaves it "
        "out."
    ),
]
NO_ATTACK = "torchattacks:PGD"
"""The attack of a request whose attack never runs."""


@app.command("fit", cls=GroupedCommand)
@takes((*MODEL_AND_DATA, "attack", "attack_args", "norm", "eps"), attack=None)
def fit(
    *,
    given: dict[str, Any],
    out: Annotated[Path, typer.Option(help="The detector's file.")] = Path("detector.json"),
    alpha: Annotated[
        float, typer.Option(help="The share of clean images that may be flagged.")
    ] = 0.05,
    side: Annotated[
        str, typer.Option(help="Which scores are flagged: low, high, or two-sided for both.")
    ] = "two-sided",
    per_class: Annotated[
        bool, typer.Option("--per-class", help="Thresholds for each predicted class.")
    ] = False,
    delta: Annotated[
        float | None,
        typer.Option(
            help="At most this chance that one calibration flags more than alpha; by default alpha "
            "holds on average over calibrations."
        ),
    ] = None,
    stump: Annotated[
        bool,
        typer.Option("--stump", help="Learn one threshold from an --attack instead, in 5 folds."),
    ] = False,
    adaptive: Knowing = 32,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Calibrate a detector on clean images, and write it to one file bound to the model's weights.

    The rate of false positives holds for clean images like these, whatever the attack. Afterwards
    an adaptive attack, which knows the detector, runs within --eps; the file keeps its result.
    """
    from flatguard.cli.progress import watching
    from flatguard.detection.fitting import CalibrationSettings, fit_detector
    from flatguard.execution import context

    if stump and given["attack"] is None:
        raise UsageError("--stump learns from adversarial examples: name an --attack and --eps")
    request = make_request(**{**given, "attack": given["attack"] or NO_ATTACK})
    settings = CalibrationSettings(
        alpha, _side(side), per_class, delta, "stump" if stump else "conformal"
    )
    with watching(quiet, as_json) as watcher:
        load = context.resolve if stump or adaptive else context.load_model_and_data
        found = fit_detector(load(request), settings, adaptive, watcher)
    found.save(out)
    from flatguard.cli.detected import show_fit
    from flatguard.detection.detector_file import SavedDetector

    kept = SavedDetector.open(out)
    if as_json:
        facts = kept.model_dump(exclude={"classes"})
        bounds = {key: (of.lower, of.upper) for key, of in kept.classes.items()}
        typer.echo(json.dumps({**facts, "thresholds": bounds, "file": str(out)}))
    else:
        show_fit(kept, out)


@app.command("score", cls=GroupedCommand)
@takes(MODEL_AND_DATA)
def score(
    *,
    given: dict[str, Any],
    detector: DetectorFile,
    out: Annotated[
        Path | None, typer.Option(help="A .csv or .parquet with a row an image; by default none.")
    ] = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Flag images: one forward pass each. To flag a run, use `flatguard evaluate --detector`."""
    from flatguard.cli.detected import show_scores, write_scores
    from flatguard.cli.progress import watching
    from flatguard.detection.scoring import score_images
    from flatguard.execution import context
    from flatguard.geometry.measures import measure_in

    request = make_request(**given, attack=NO_ATTACK)
    if out is not None and out.suffix not in (".csv", ".parquet"):
        raise UsageError(f"--out: expected a .csv or .parquet file, got {out}")
    with watching(quiet, as_json) as watcher:
        subject = context.load_model_and_data(request)
        table = score_images(subject, detector, watcher)
    if out is not None:
        write_scores(table, out)
    if as_json:
        flagged = int(table["flagged"].sum())
        facts = {"images": len(table), "flagged": flagged, "out": str(out) if out else None}
        score = table[measure_in(table.columns).column]
        typer.echo(json.dumps({**facts, "unmeasured": int(score.isna().sum())}))
    else:
        show_scores(table, out)


@app.command("evaluate", cls=GroupedCommand)
@takes({*MODEL_AND_DATA, "attack_args", "norm"} - {"n_examples"})
def evaluate(
    *,
    given: dict[str, Any],
    attack: Annotated[
        list[str], typer.Option(help="An attack; may be repeated. Baselines learn from the first.")
    ],
    eps: Annotated[list[str] | None, typer.Option(help="A radius: 8/255; may be repeated.")] = None,
    n_examples: Annotated[int, typer.Option(help="Images that are attacked and judged on.")] = 500,
    n_fit: Annotated[
        int, typer.Option(help="Other images, attacked too, that baselines learn from.")
    ] = 100,
    n_calibration: Annotated[
        int, typer.Option(help="Other clean images, for the thresholds of all detectors.")
    ] = 400,
    adaptive: Knowing = 100,
    out: options.Out = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Compare the sharpness threshold with other detectors, on the same images.

    With --json: `auroc`, `stump_accuracy`, `stump_folds`, `tpr_at_5_fpr` and `tpr_at_1_fpr` of
    log κ under the first attack, the same for every baseline under `baselines`, and all of it
    under `trial`. --attack-arg reaches every attack that knows the argument. An interrupted
    experiment goes on where it stopped if the same --out is named.
    """
    from flatguard.attacks import find_attack
    from flatguard.cli.detected import show_experiment
    from flatguard.cli.progress import watching
    from flatguard.detection.comparison import AttackAtRadius
    from flatguard.detection.experiment import (
        SampleSizes,
        experiment_folder,
        run_experiment,
    )
    from flatguard.execution import context

    sizes = SampleSizes(n_examples, n_fit, n_calibration, adaptive)
    known = find_attack(attack[0]).parameters
    given["attack_args"] = {k: v for k, v in given["attack_args"].items() if k in known}
    request = make_request(
        **given, attack=attack[0], eps=eps[0] if eps else None, n_examples=sizes.total
    )
    with watching(quiet, as_json) as watcher:
        try:
            whole = context.resolve(request)
        except DataError as error:
            parts = f"{n_examples} to evaluate, {n_fit} to fit and {n_calibration} to calibrate"
            raise DataError(f"{error} ({parts} are needed)") from error
        radii = eps or [str(whole.request.eps)]
        wanted = [AttackAtRadius(name, radius) for radius in radii for name in attack]
        path = experiment_folder(request) if out is None else Path(out)
        trial = run_experiment(whole, wanted, sizes, path, sys.argv, watcher)
    if as_json:
        typer.echo(json.dumps({**_facts(trial), "out": str(path)}))
    else:
        show_experiment(trial, path)


def _facts(trial: DetectionExperiment) -> dict[str, Any]:
    """The sharpness threshold under the first attack, the other detectors, and the experiment."""
    from flatguard.detection.results import DetectorResult

    first = {k: v.model_dump() for k, v in trial.attacks[0].detectors.items()}
    own = first.pop("log-kappa")
    unmeasured = dict.fromkeys(DetectorResult.model_fields)
    first |= {name: {**unmeasured, "missing": why} for name, why in trial.missing.items()}
    return {**own, "baselines": first, "trial": trial.model_dump()}


def _side(text: str) -> Any:
    from flatguard.detection.conformal import FalsePositiveRate

    return FalsePositiveRate(0.5, text).side  # type: ignore[arg-type]  # refuses what is no side
