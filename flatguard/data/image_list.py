"""A CSV file of images: a path and a label in each row."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath

from flatguard.data.class_names import mapping_note
from flatguard.data.dataset import Dataset
from flatguard.data.image_files import ImageFiles
from flatguard.data.pictures import SUFFIXES
from flatguard.data.reading import reading
from flatguard.errors import DataError

LISTS = (".csv", ".tsv")
_PATHS = ("path", "file", "filename", "file_name", "filepath", "file_path", "image", "image_path",
          "img", "img_path", "image_id")  # fmt: skip
_LABELS = ("label", "labels", "class", "class_name", "classname", "target", "category", "y",
           "class_id", "label_id")  # fmt: skip
_LARGEST_FILE = 1 << 28
_LONGEST_NUMBER = 9


def load(file: Path, preprocessing: str | None) -> Dataset:
    """The images that a CSV names, in its order.

    Commas, semicolons or tabs separate the columns. A first row of names is optional; without it
    there are two columns, and the one of image files is the path. Paths start from the CSV's
    folder. Labels are all numbers, or all names of classes; label i is then the i-th name in
    alphabetical order. The labels are in the data set's notes.

    Raises:
        DataError: names the row whose file is missing or whose label is not one.
    """
    with reading(file, "is no list of images"):
        if file.stat().st_size > _LARGEST_FILE:
            raise DataError(f"{file} is too large for a list of images")
        rows = list(_rows(file, file.read_text(encoding="utf-8-sig")))
    if not rows:
        raise DataError(f"{file} holds no images; expected rows of path,label")
    files = [_file(file, row) for row in rows]
    numbers = [_number(row.label) for row in rows]
    numeric = [number is not None for number in numbers]
    if any(numeric) and not all(numeric):
        odd = rows[numeric.index(not numeric[0])]
        raise DataError(
            f"{file}, row {odd.number}: expected labels that are all numbers or all names, got "
            f"{odd.label!r} after {rows[0].label!r}"
        )
    if all(numeric):
        labels, names = [number for number in numbers if number is not None], None
    else:
        names = tuple(sorted({row.label for row in rows}))
        known = {name: label for label, name in enumerate(names)}
        labels = [known[row.label] for row in rows]
    served = ImageFiles(files, labels, preprocessing, file.name)
    if names is not None:
        served.classes = names
        served.notes = (mapping_note(dict(enumerate(names)), "names"),)
    return served


@dataclass(frozen=True)
class _Row:
    number: int
    path: str
    label: str


def _rows(file: Path, text: str) -> Iterator[_Row]:
    head = next((line for line in text.splitlines() if line.strip()), "")
    delimiter = next((sign for sign in "\t;" if sign in head), ",")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
    path_at = label_at = -1
    width = 0
    for cells in reader:
        cells = [cell.strip() for cell in cells]
        if not any(cells):
            continue
        if not width:
            width = len(cells)
            header = _columns(file, cells)
            path_at, label_at = header or _guessed(file, cells)
            if header:
                continue
        if len(cells) != width:
            raise DataError(
                f"{file}, row {reader.line_num}: expected {width} columns, got {len(cells)}; "
                "write a path with a comma in quotes"
            )
        for what, at in (("path", path_at), ("label", label_at)):
            if not cells[at]:
                raise DataError(f"{file}, row {reader.line_num}: the {what} is missing")
        yield _Row(reader.line_num, cells[path_at], cells[label_at])


def _columns(file: Path, cells: list[str]) -> tuple[int, int] | None:
    """The columns of path and label by the names in the first row; None if it has no names."""
    names = [cell.lower() for cell in cells]
    paths = [names.index(name) for name in _PATHS if name in names]
    labels = [names.index(name) for name in _LABELS if name in names]
    if not paths and (not labels or _is_path(file, cells)):
        return None
    if not paths or not labels:
        raise DataError(
            f"{file}: expected columns named path and label, got {', '.join(cells[:6])}"
        )
    if len(labels) > 1:
        several = ", ".join(cells[at] for at in labels)
        raise DataError(f"{file}: expected one column of labels, got {several}; leave one")
    return paths[0], labels[0]


def _is_path(file: Path, cells: list[str]) -> bool:
    return any(Path(cell).suffix.lower() in SUFFIXES for cell in cells)


def _guessed(file: Path, cells: list[str]) -> tuple[int, int]:
    if len(cells) == 2:
        are_paths = [_is_path(file, [cell]) for cell in cells]
        if are_paths[0] != are_paths[1]:
            return are_paths.index(True), are_paths.index(False)
    raise DataError(
        f"{file}: expected two columns, the path of an image and its label, or a first row with "
        f"the names path and label; got {', '.join(cells[:6])}"
    )


def _file(listed_in: Path, row: _Row) -> Path:
    found = listed_in.parent / row.path
    if not found.is_file() and "\\" in row.path:
        found = listed_in.parent / PureWindowsPath(row.path).as_posix()
    if not found.is_file():
        raise DataError(f"{listed_in}, row {row.number}: no file {found}")
    return found


def _number(label: str) -> int | None:
    """A label that is a whole number, also as `3.0`; -1 is one, which no model has."""
    digits = label.removesuffix(".0")
    if not digits.removeprefix("-").isdecimal() or not digits.isascii():
        return None
    return int(digits) if len(digits) <= _LONGEST_NUMBER else None
