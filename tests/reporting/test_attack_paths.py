"""Quantiles and single paths, against NumPy and pandas on the whole table."""

import numpy as np
import pandas as pd
import pytest

from flatguard.reporting.attack_paths import (
    LEVELS,
    MOST_STEPS,
    AttackPaths,
    read_attack_paths,
    step_quantiles,
)
from flatguard.runs.run import Run


@pytest.fixture(scope="module")
def table(run: Run) -> pd.DataFrame:
    rows = run.trajectory.sort_values(["sample", "call"], kind="stable", ignore_index=True)
    return rows.assign(step=rows.groupby("sample").cumcount())


def test_every_row_has_its_step(run: Run, table: pd.DataFrame) -> None:
    paths = read_attack_paths(run, np.arange(len(run.samples)))
    assert paths.sample.tolist() == table["sample"].tolist()
    assert paths.step.tolist() == table["step"].tolist()
    assert paths.loss.tolist() == table["loss"].tolist()


@pytest.mark.parametrize("column", ["loss", "sharpness"])
def test_bands_are_quantiles(run: Run, table: pd.DataFrame, column: str) -> None:
    chosen = np.arange(0, 60, 3)
    found = step_quantiles(read_attack_paths(run, chosen), column, chosen)
    recorded = "log_kappa" if column == "sharpness" else column
    grouped = table[table["sample"].isin(chosen)].groupby("step")[recorded]
    for row, level in zip(found.values, LEVELS, strict=True):
        wanted = grouped.apply(np.quantile, level, method="nearest")
        assert row.tolist() == wanted.tolist()
    assert found.count.tolist() == grouped.count().tolist()


def test_one_path_is_a_samples_own(run: Run, table: pd.DataFrame) -> None:
    wanted = table[table["sample"] == 31]
    found = read_attack_paths(run, np.array([7, 31]))
    assert found.of(31).sharpness.tolist() == wanted["log_kappa"].tolist()
    assert set(found.sample) == {7, 31}
    assert len(found.of(1000)) == 0


def test_long_attacks_are_thinned_to_their_ends() -> None:
    steps = np.arange(5000, dtype=np.int32)
    one = AttackPaths(
        np.zeros(5000, int), steps, steps.astype(np.float32), steps.astype(np.float32)
    )
    found = step_quantiles(one, "loss", np.array([0]))
    assert len(found.step) <= MOST_STEPS
    assert (found.step[0], found.step[-1]) == (0, 4999)
    assert found.values[2].tolist() == found.step.tolist()


def test_what_is_not_finite_is_in_no_band() -> None:
    loss = np.array([1.0, np.nan, 3.0, np.inf], np.float32)
    paths = AttackPaths(np.arange(4), np.zeros(4, np.int32), loss, loss)
    found = step_quantiles(paths, "loss", np.arange(4))
    assert found.count.tolist() == [2]
