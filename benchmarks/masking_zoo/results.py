"""Results that outlive a run: one JSON line for each pair and level, in files that are committed.

A run appends each result as it comes, and a later one takes what is there. A stored result counts
where pair, level, flatguard's version and the pair's fingerprint are the same and where every
judge of today has answered.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from benchmarks.masking_zoo.runner import Result

FOLDER = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Key:
    """What a stored result belongs to.

    Attributes:
        pair: its name.
        checks: `fast`, `standard` or `full`.
        flatguard: the version that judged.
        fingerprint: of the pair, the same on every machine and at every commit.
    """

    pair: str
    checks: str
    flatguard: str
    fingerprint: str


@dataclass(frozen=True)
class Record:
    """A result, and what it belongs to.

    Attributes:
        kind: of defence, as the literature names it.
        images: how many the pair was judged on.
    """

    key: Key
    kind: str
    images: int
    result: Result

    @property
    def seconds(self) -> float:
        """Of flatguard's evaluation and verdict."""
        return self.result.seconds


class Store:
    """A file of records, one JSON object a line; later lines replace earlier ones."""

    def __init__(self, file: Path):
        self.file = file

    def records(self) -> dict[tuple[str, str], Record]:
        """The last record of each pair and level; those that lack an answer of today are left out.

        A run that was killed while it wrote leaves half a line: it is no record.
        """
        found: dict[tuple[str, str], Record] = {}
        if not self.file.is_file():
            return found
        for line in self.file.read_text("utf-8").splitlines():
            if (record := _read(line)) is not None:
                found[record.key.pair, record.key.checks] = record
        return found

    def find(self, key: Key) -> Record | None:
        """The stored record with exactly this key."""
        record = self.records().get((key.pair, key.checks))
        return record if record is not None and record.key == key else None

    def append(self, record: Record) -> None:
        """Write one line, and have it on the disk before anything else happens."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        line = json.dumps(_as_dict(record)) + "\n"
        with self.file.open("a+b") as file:
            if file.tell() and not self._ends_with_a_line():
                file.write(b"\n")
            file.write(line.encode("utf-8"))
            file.flush()
            os.fsync(file.fileno())

    def keep(self, records: Sequence[Record]) -> None:
        """Write the file anew with these records alone, in this order."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        part = self.file.with_suffix(".part")
        part.write_text("".join(json.dumps(_as_dict(r)) + "\n" for r in records), "utf-8")
        part.replace(self.file)

    def _ends_with_a_line(self) -> bool:
        return self.file.read_bytes().endswith(b"\n")


def file_of(checks: str) -> Path:
    """Where the documented run of a level is kept."""
    return FOLDER / f"{checks}.jsonl"


def _as_dict(record: Record) -> dict[str, Any]:
    known = asdict(record.key) | {"kind": record.kind, "images": record.images}
    return known | {"seconds": record.seconds, "result": asdict(record.result)}


def _read(line: str) -> Record | None:
    try:
        stored = json.loads(line)
    except json.JSONDecodeError:
        return None
    answers = stored["result"]
    if set(answers) != {field.name for field in fields(Result)}:
        return None
    answers["mechanism_expected"] = tuple(answers["mechanism_expected"])
    key = Key(**{field.name: stored[field.name] for field in fields(Key)})
    return Record(key, stored["kind"], stored["images"], Result(**answers))
