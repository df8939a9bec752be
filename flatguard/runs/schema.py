"""Checks the tables of a run folder: their columns, the columns' types, and the samples.

A table that passes can be used without further checks; one that does not is damaged.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path

import numpy as np
import pandas as pd
from pandas.api.types import is_bool_dtype, is_integer_dtype, is_numeric_dtype

from flatguard.errors import RunFolderError
from flatguard.recording.attribution import How
from flatguard.recording.measure import COLUMNS
from flatguard.runs.facts import BlockPlan

_MEASURED = tuple(name for name in COLUMNS if name not in ("linf", "l2"))
_TRUTHS = ("admissible", "clean_correct", "robust", "failed")
_WHOLE = ("sample", "label", "call", "segment", "assigned_by", "prediction")
_SAMPLE_COLUMNS = (
    "sample", "label", *(f"{which}_{name}" for which in ("clean", "adv") for name in _MEASURED),
    "linf", "l2", "distance", *_TRUTHS,
)  # fmt: skip
_TRAJECTORY_COLUMNS = ("sample", "call", *COLUMNS, "assigned_by", "segment")
LAYER_COLUMNS = (
    "sample", "layer", "depth", "point", "call", "kappa", "standard_error", "method", "matvecs",
    "repeats",
)  # fmt: skip
_WORDS = (
    "layer", "point", "method", "attempt", "family", "candidate", "sight", "case", "loss_state",
    "margin_state",
)  # fmt: skip
"""Columns of strings; all others hold numbers or truth values."""


def check_samples(file: Path, table: pd.DataFrame, plan: BlockPlan) -> pd.DataFrame:
    """Check a block's samples: each sample of the plan once, in order.

    Raises:
        RunFolderError: names the file and the column.
    """
    check_columns(file, table, _SAMPLE_COLUMNS)
    if table["sample"].tolist() != list(range(plan.start, plan.stop)):
        raise _damaged(file, f"expected samples {plan.start} to {plan.stop - 1}, each once")
    if (table["label"] < 0).any():
        raise _damaged(file, "a label is negative")
    return table


def check_trajectory(
    file: Path, table: pd.DataFrame, plan: BlockPlan, columns: Iterable[str] = _TRAJECTORY_COLUMNS
) -> pd.DataFrame:
    """Check a block's trajectory: its rows are about samples of the plan, or about none.

    Raises:
        RunFolderError: names the file and the column.
    """
    check_columns(file, table, columns)
    known = table["sample"].dropna()
    if not known.between(plan.start, plan.stop - 1).all():
        raise _damaged(file, f"expected samples {plan.start} to {plan.stop - 1}")
    if "assigned_by" in table and not table["assigned_by"].between(0, len(How) - 1).all():
        raise _damaged(file, "a row was assigned in an unknown way")
    return table


def check_columns(file: Path, table: pd.DataFrame, wanted: Iterable[str]) -> pd.DataFrame:
    """Check that a table has these columns, and that all its columns have their types.

    Raises:
        RunFolderError: names the file and the column.
    """
    missing = set(wanted) - set(table.columns)
    if missing:
        raise _damaged(file, f"it has no column {', '.join(sorted(missing))}")
    if not table.columns.is_unique:
        raise _damaged(file, "two columns have one name")
    for name in table.columns:
        if not _fits(str(name), table[name]):
            raise _damaged(file, f"column {name} is of {table[name].dtype}")
    return table


def check_known(file: Path, table: pd.DataFrame, samples: Collection[int]) -> pd.DataFrame:
    """Check that a probe's table is about samples of its run.

    Raises:
        RunFolderError: it has another sample.
    """
    if not np.isin(table["sample"].to_numpy(), list(samples)).all():
        raise _damaged(file, "it is about a sample that the run does not have")
    return table


def _fits(name: str, column: pd.Series) -> bool:
    if len(column) == 0:
        return True  # an empty column has no type
    if name in _WORDS:
        return all(isinstance(word, str) for word in column.unique())
    if name in (*_TRUTHS, "fooled", "flips"):
        return is_bool_dtype(column.dtype) and not column.isna().any()
    if name == "sample" or (name in _WHOLE and column.notna().all()):
        return is_integer_dtype(column.dtype) or _is_whole(column)
    return is_numeric_dtype(column.dtype)


def _is_whole(column: pd.Series) -> bool:
    """Whether a column of floats, as pandas makes of integers with gaps, holds whole numbers."""
    if not is_numeric_dtype(column.dtype):
        return False
    values = column.dropna().to_numpy(float)
    return bool((values == np.rint(values)).all() and (np.abs(values) < 2**53).all())


def _damaged(file: Path, why: str) -> RunFolderError:
    return RunFolderError(f"{file} is damaged: {why}")
