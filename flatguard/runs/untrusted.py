"""Reads the files of a run folder, which may come from an untrusted source.

Only plain files are read: a link could lead out of the folder, and a pipe could block its reader.
The memory that a file takes is limited before it is read: a table of a few kilobytes may unpack to
terabytes.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import pandas as pd
from torch import Tensor

from flatguard.environment.system import is_link
from flatguard.errors import RunFolderError

MEBIBYTE = 1 << 20
LARGEST_TEXT = 32 * MEBIBYTE
"""Most bytes of a JSON file, enough for a manifest of 300,000 blocks."""

LARGEST_FILE = 4096 * MEBIBYTE
"""Most bytes of a table, or of a block's images."""

FREE, RATIO = 1024 * MEBIBYTE, 500
"""A run's tables may unpack to 1 GiB plus 500 times their bytes; runs of ours reach 82 times."""

_PIECE = 1 << 16
"""Rows that are read together."""


def is_plain_folder(folder: Path) -> bool:
    """Whether a folder exists.

    Raises:
        RunFolderError: it is something else, such as a link.
    """
    found = _status(folder)
    if found is None:
        return False
    if stat.S_ISDIR(found.st_mode) and not is_link(found):
        return True
    what = "a link" if is_link(found) else "no folder"
    raise RunFolderError(f"{folder} is {what}; a run folder holds plain files and folders only")


def is_plain_file(file: Path) -> bool:
    """Whether a file exists.

    Raises:
        RunFolderError: it is something else, such as a link.
    """
    found = _status(file)
    if found is None:
        return False
    if stat.S_ISREG(found.st_mode) and not is_link(found):
        return True
    what = "a link" if is_link(found) else "no plain file"
    raise RunFolderError(f"{file} is {what}; a run folder holds plain files and folders only")


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None


def check_file(file: Path, most: int = LARGEST_FILE) -> int:
    """The bytes that a plain file takes on the disk.

    Raises:
        RunFolderError: it is missing, larger than `most`, or no plain file.
    """
    if not is_plain_file(file):
        raise RunFolderError(f"{file} is missing")
    found = file.stat()
    if found.st_size > most:
        raise RunFolderError(
            f"{file} is damaged: expected at most {most // MEBIBYTE:,} MiB, got "
            f"{found.st_size / MEBIBYTE:,.1f} MiB"
        )
    # The size of a file with holes is larger than the bytes that it takes.
    return min(found.st_size, 512 * getattr(found, "st_blocks", found.st_size))


def copy_bounded(source: BinaryIO, file: Path, name: str) -> None:
    """Download a file in pieces, up to the size that a run folder's file may have.

    Raises:
        RunFolderError: it is larger; the message has its `name` at the source.
    """
    most = LARGEST_TEXT if file.suffix == ".json" else LARGEST_FILE
    left = most
    with file.open("wb") as stream:
        while piece := source.read(MEBIBYTE):
            left -= len(piece)
            if left < 0:
                raise RunFolderError(
                    f"{name} is damaged: expected at most {most // MEBIBYTE:,} MiB, got more"
                )
            stream.write(piece)


def read_text(file: Path) -> str:
    """A JSON file's text."""
    check_file(file, LARGEST_TEXT)
    return file.read_text("utf-8")


def read_tensors(file: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file; they take as much memory as the file."""
    from safetensors.torch import load_file

    check_file(file)
    tensors: dict[str, Tensor] = load_file(file)
    return tensors


class Room:
    """The memory that all tables of one run may take together.

    With a limit for each file, a thousand small files could unpack to a gigabyte each.
    """

    def __init__(self) -> None:
        self._most, self._taken = FREE, 0

    def read(self, file: Path, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """Read a Parquet file of numbers and strings.

        It is read in pieces, so that a file which unpacks to too much is refused in time. Each
        distinct string is kept once.

        Args:
            file: of the run folder.
            columns: only these; None reads all.

        Raises:
            RunFolderError: it has columns of other types, or takes too much memory.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        self._most += RATIO * check_file(file)
        with pq.ParquetFile(file) as opened:
            schema = opened.schema_arrow
            self._check(file, 8 * opened.metadata.num_rows * len(columns or schema.names))
        words = [field.name for field in schema if _is_word(field.type)]
        for field in schema:
            if field.name not in words and not _is_number(field.type):
                raise RunFolderError(f"{file} is damaged: column {field.name} is of {field.type}")
        pieces = []
        with pq.ParquetFile(file, read_dictionary=words) as opened:
            for piece in opened.iter_batches(_PIECE, columns=columns):
                pieces.append(piece)
                self._check(file, piece.nbytes)
                self._taken += piece.nbytes
            whole = pa.Table.from_batches(pieces, None if pieces else schema)
        table = whole.to_pandas()
        kept = table if columns is None else table[list(columns)]
        plain: pd.DataFrame = kept.astype({n: object for n in words if n in kept.columns})
        return plain

    def _check(self, file: Path, needed: int) -> None:
        if self._taken + needed > self._most:
            raise RunFolderError(
                f"{file} is damaged: it would unpack to more than {needed / MEBIBYTE:,.0f} MiB"
            )


def _is_word(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_number(kind: Any) -> bool:
    import pyarrow as pa

    kinds = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_null)
    return any(is_one(kind) for is_one in kinds)
