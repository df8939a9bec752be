"""Measures the cost curves, fits the model, and writes docs/performance.md's numbers and plots.

python -m benchmarks.cost_curves           measures what is missing, and draws
python -m benchmarks.cost_curves --fresh   measures everything anew
python -m benchmarks.cost_curves --compare '{"examples": 64, "size": 96}'   one more run
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, replace
from pathlib import Path

from benchmarks.cost_curves.measure import Measured, Trial, from_json, measured
from benchmarks.cost_curves.model import fitted
from benchmarks.cost_curves.page import write_page

FOLDER = Path(__file__).parents[2] / "docs" / "performance"
KEPT = FOLDER / "cost-curves.json"

BASE = Trial()
CURVES: dict[str, tuple[int, ...]] = {
    "examples": (16, 32, 64, 128),
    "steps": (5, 10, 20, 40),
    "classes": (10, 100, 300, 1000),
    "size": (32, 64, 128, 224),
    "width": (8, 16, 32, 64, 128),
    "batch": (4, 8, 16, 32),
    "workers": (1, 2),
}
"""Each is varied alone; the others are the base's."""

HELD_OUT = (
    Trial(examples=48, steps=15, classes=200, size=48, width=12, batch=12),
    Trial(examples=24, steps=30, classes=50, size=96, width=24, batch=8),
    Trial(examples=20, steps=8, classes=1000, size=160, width=16, batch=10),
)
"""Runs that the model is not fitted on; they share at most one quantity with any that it is."""


def main() -> None:
    """Measure what the kept file lacks, one process after another, and draw."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--fresh", action="store_true")
    parser.add_argument("--compare", metavar="JSON", help="a trial to measure and to predict")
    given = parser.parse_args()
    if given.compare is not None:
        compare(Trial(**json.loads(given.compare)))
        return
    FOLDER.mkdir(exist_ok=True)
    runs = {} if given.fresh else load()
    for run in measured([trial for trial in wanted() if trial not in runs]):
        runs[run.trial] = run
        print(f"{run.trial}: {run.seconds:.2f} s", flush=True)
        save(runs)
    write_page([runs[t] for t in fitted_on()], [runs[t] for t in HELD_OUT], FOLDER)


def compare(trial: Trial) -> None:
    """Print what a run takes here and what the kept model says, from the network's size alone."""
    model = fitted([load()[each] for each in fitted_on()])
    (run,) = measured([trial])
    seconds, peak = model.seconds_from_size(run), model.peak_bytes(run)
    print(
        f"{run.seconds:.2f} s and {run.peak_bytes / 1e6:.0f} MB measured, {seconds:.2f} s "
        f"({seconds / run.seconds:.2f} times) and {peak / 1e6:.0f} MB by the model"
    )


def fitted_on() -> list[Trial]:
    """The trials of the curves, each once."""
    found = {replace(BASE, **{name: value}): None for name, of in CURVES.items() for value in of}
    return list(found)


def wanted() -> list[Trial]:
    """All trials."""
    return [*fitted_on(), *HELD_OUT]


def load() -> dict[Trial, Measured]:
    """The kept measurements."""
    if not KEPT.is_file():
        return {}
    kept = [from_json(json.dumps(each)) for each in json.loads(KEPT.read_text("utf-8"))]
    return {each.trial: each for each in kept}


def save(runs: dict[Trial, Measured]) -> None:
    """Keep the measurements, also of a series that is interrupted."""
    KEPT.write_text(json.dumps([asdict(each) for each in runs.values()], indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
