"""RobustBench's published figures, from `robustbench_leaderboard.csv`."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING

from flatguard.checks.preflight.facts import Published

if TYPE_CHECKING:
    from flatguard.execution.context import ModelAndData

_SOURCE = re.compile(r"^RobustBench (?P<entry>\S+) \((?P<dataset>\w+), (?P<threat>\w+)\)")


_UNKNOWN = ("", "null")
"""What stands in the table where no figure is published."""


@dataclass(frozen=True)
class EntryName:
    """An entry of the leaderboard, as a target's source names it."""

    entry: str
    dataset: str
    threat_model: str


@dataclass(frozen=True)
class LeaderboardRow:
    """What is published for an entry, as shares; None where it is not.

    Attributes:
        name: of the entry, and its table.
        eps: the radius of the figures, as it is written: `8/255`; None for corruptions.
        clean: the clean accuracy.
        reported: the robust accuracy that the authors reported.
        autoattack: that of AutoAttack, standard version.
        external: that of a stronger evaluation.
        corruptions: the accuracy on corruptions.
    """

    name: EntryName
    eps: str | None
    clean: float | None
    reported: float | None
    autoattack: float | None
    external: float | None
    corruptions: float | None

    @property
    def best_known(self) -> float | None:
        """The lowest published robust accuracy by AutoAttack or an external evaluation."""
        return min((x for x in (self.autoattack, self.external) if x is not None), default=None)


def entry_of(source: str) -> EntryName | None:
    """The entry that a target's source names; None where it is no entry."""
    found = _SOURCE.match(source)
    return None if found is None else EntryName(found["entry"], found["dataset"], found["threat"])


def published(loaded: ModelAndData) -> Published | None:
    """The published clean accuracy, where the model is an entry and these are its images."""
    entry = entry_of(loaded.target.source)
    if entry is None or loaded.dataset.name != entry.dataset:
        return None
    accuracy = clean_accuracy(entry.dataset, entry.threat_model, entry.entry)
    return None if accuracy is None else Published(entry=entry.entry, accuracy=accuracy)


def clean_accuracy(dataset: str, threat_model: str, entry: str) -> float | None:
    """The published clean accuracy of an entry, as a share; None where none is published."""
    row = find_row(EntryName(entry, dataset, threat_model))
    return None if row is None else row.clean


def find_row(name: EntryName) -> LeaderboardRow | None:
    """The row of an entry; None where there is none."""
    wanted = (name.entry, name.dataset, _table(name))
    rows = (r for r in leaderboard() if (r.name.entry, r.name.dataset, _table(r.name)) == wanted)
    return next(rows, None)


def table_of(name: EntryName) -> list[LeaderboardRow]:
    """The rows of an entry's table: of its data set and threat model."""
    return [
        row
        for row in leaderboard()
        if (row.name.dataset, _table(row.name)) == (name.dataset, _table(name))
    ]


def _table(name: EntryName) -> str:
    """Both corruption benchmarks share one table."""
    return name.threat_model.removesuffix("_3d")


@cache
def leaderboard() -> tuple[LeaderboardRow, ...]:
    """Every row of the package's data."""
    file = resources.files(__package__) / "robustbench_leaderboard.csv"
    with file.open(encoding="utf-8") as lines:
        return tuple(_row(row) for row in csv.DictReader(lines))


def _row(row: dict[str, str]) -> LeaderboardRow:
    def share(column: str) -> float | None:
        return float(row[column]) / 100 if row[column] not in _UNKNOWN else None

    return LeaderboardRow(
        name=EntryName(row["model"], row["dataset"], row["threat_model"]),
        eps=row["eps"] or None,
        clean=share("clean_accuracy"),
        reported=share("reported_by_authors"),
        autoattack=share("autoattack_accuracy"),
        external=share("external_accuracy"),
        corruptions=share("corruptions_accuracy"),
    )
