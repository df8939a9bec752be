"""Prompts and their targets from a .csv file."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from flatguard.data.reading import reading
from flatguard.errors import DataError

_COLUMNS = ("prompt", "target")
_LARGEST = 1 << 24
"""Bytes; so long a list of prompts could not be attacked."""


def read_prompts(path: Path) -> list[tuple[str, str]]:
    """The rows of a .csv with the columns `prompt` and `target`.

    Raises:
        DataError: no such file, other columns, no rows, or an empty cell.
    """
    with reading(path, "holds no table"):
        if path.stat().st_size > _LARGEST:
            raise DataError(f"{path}: expected at most {_LARGEST >> 20} MiB of prompts")
        table = csv.DictReader(io.StringIO(path.read_text("utf-8-sig")))
        rows = list(table)
    found = list(table.fieldnames or ())
    if not set(_COLUMNS) <= set(found):
        raise DataError(
            f"{path}: expected the columns prompt and target, got {', '.join(found) or 'none'}"
        )
    if not rows:
        raise DataError(f"{path}: expected a row for each prompt, got none")
    for number, row in enumerate(rows, start=1):
        for name in _COLUMNS:
            if not (row[name] or "").strip():
                raise DataError(f"{path}: row {number} has no {name}")
    return [(row["prompt"], row["target"]) for row in rows]
