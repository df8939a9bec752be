"""The tables of a run folder: columns, types and samples."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from support.run_folders import refused

from benchmarks.fuzz.forging import sign
from flatguard.errors import RunFolderError
from flatguard.runs.run import load_run

TABLES: dict[str, tuple[Callable[[pd.DataFrame], pd.DataFrame], str]] = {
    "a column is missing": (lambda t: t.drop(columns="robust"), "it has no column robust"),
    "words for numbers": (lambda t: t.assign(clean_loss="much"), "column clean_loss is of"),
    "numbers for truths": (lambda t: t.assign(robust=0.5), "column robust is of float64"),
    "other samples": (lambda t: t.assign(sample=t["sample"] + 1), "expected samples 0 to 1"),
    "one sample twice": (lambda t: t.assign(sample=0), "expected samples 0 to 1"),
    "too few": (lambda t: t.iloc[:1], "expected samples 0 to 1"),
    "a sample of half": (lambda t: t.assign(sample=[0.0, 0.5]), "column sample is of float64"),
    "a label below nought": (lambda t: t.assign(label=-1), "a label is negative"),
}


@pytest.mark.parametrize("case", TABLES)
def test_tables_of_something_else(case: str, block: Path) -> None:
    edit, expected = TABLES[case]
    file = block / "samples.parquet"
    edit(pd.read_parquet(file)).to_parquet(file, index=False)
    sign(block)
    refused(f"samples.parquet is damaged: {expected}")


def test_a_trajectory_of_something_else(block: Path) -> None:
    file = block / "trajectory.parquet"
    whole = pd.read_parquet(file)
    for changed in (whole.assign(sample=99), whole.assign(assigned_by=9), whole[["sample"]]):
        changed.to_parquet(file, index=False)
        with pytest.raises(RunFolderError, match=r"trajectory\.parquet is damaged"):
            _ = load_run("run").trajectory
