"""The cost model: what is kept, what it predicts, and that the page says so. Nothing is timed."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.cost_curves.__main__ import CURVES, FOLDER, HELD_OUT, fitted_on, load
from benchmarks.cost_curves.measure import Measured, Trial
from benchmarks.cost_curves.model import MEMORY, TIME, CostModel, fitted
from benchmarks.cost_curves.page import imagenet_hours, tables, varied

WITHIN = 1.25


@pytest.fixture(scope="module")
def runs() -> dict[Trial, Measured]:
    return load()


@pytest.fixture(scope="module")
def model(runs: dict[Trial, Measured]) -> CostModel:
    return fitted([runs[trial] for trial in fitted_on()])


def test_every_run_of_the_curves_is_kept(runs: dict[Trial, Measured]) -> None:
    assert set(runs) == {*fitted_on(), *HELD_OUT}
    for name, values in CURVES.items():
        wanted = {"width": "parameters"}.get(name, name)
        assert len(varied(wanted, [runs[trial] for trial in fitted_on()])) == len(values)


def test_the_model_predicts_runs_that_it_was_not_fitted_on(
    runs: dict[Trial, Measured], model: CostModel
) -> None:
    for trial in HELD_OUT:
        for other in fitted_on():
            same = {n for n, value in vars(trial).items() if value == getattr(other, n)}
            assert len(same - {"workers"}) <= 1
        run = runs[trial]
        assert 1 / WITHIN <= model.seconds_from_size(run) / run.seconds <= WITHIN
        assert 1 / WITHIN <= model.seconds(run) / run.seconds <= WITHIN
        assert 1 / WITHIN <= model.peak_bytes(run) / run.peak_bytes <= WITHIN


def test_the_page_has_the_tables_of_the_kept_runs(
    runs: dict[Trial, Measured], model: CostModel
) -> None:
    page = (FOLDER.parent / "performance.md").read_text("utf-8")
    assert tables(model, [runs[trial] for trial in HELD_OUT]) in page
    assert (FOLDER / "cost-curves.svg").read_text("utf-8").count("measured") >= 1


def test_the_fit_finds_the_coefficients_that_made_the_runs(runs: dict[Trial, Measured]) -> None:
    """Runs made by a known model, so that a coefficient cannot be taken for another."""
    known = CostModel(
        (0.3, 0.1, 2e-3, 1e-4, 1e-6, 1e-8, 3e-7, 3.0), (1e-4, 2e-11, 1e-9), (3e8, 5, 7, 2, 4, 12)
    )
    made = []
    for trial in [*fitted_on(), *HELD_OUT]:
        bare = replace(runs[trial], pass_seconds=known.pass_seconds(runs[trial]))
        peak = int(known.peak_bytes(bare)) if trial.workers == 1 else 0
        made.append(replace(bare, seconds=known.seconds(bare), peak_bytes=peak))
    found = fitted(made)
    assert found.time == pytest.approx(known.time, rel=1e-3)
    assert found.bare == pytest.approx(known.bare, rel=1e-3)
    assert found.memory == pytest.approx(known.memory, rel=1e-2)
    assert len(found.time) == len(TIME)
    assert len(found.memory) == len(MEMORY)


def test_more_gpus_share_what_is_not_serial(model: CostModel) -> None:
    alone, eight = (imagenet_hours(model, 22, 1_000, count) for count in (1, 8))
    assert alone / 8 < eight < alone
    # The device alone would need as long as this.
    assert alone > 50_000 * 22 / 1_000 / 3600
