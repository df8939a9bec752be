"""RobustBench's published clean accuracies, from `robustbench_leaderboard.csv`."""

from __future__ import annotations

import csv
import re
from importlib import resources

from flatguard.checks.preflight.facts import Published
from flatguard.execution.context import ModelAndData

_SOURCE = re.compile(r"^RobustBench (?P<entry>\S+) \((?P<dataset>\w+), (?P<threat>\w+)\)")


def published(loaded: ModelAndData) -> Published | None:
    """The published figure, where the model is an entry and these are its benchmark's images."""
    found = _SOURCE.match(loaded.target.source)
    if found is None or loaded.dataset.name != found["dataset"]:
        return None
    accuracy = clean_accuracy(found["dataset"], found["threat"], found["entry"])
    return None if accuracy is None else Published(entry=found["entry"], accuracy=accuracy)


def clean_accuracy(dataset: str, threat_model: str, entry: str) -> float | None:
    """The published clean accuracy of an entry, as a share; None where none is published."""
    wanted = (dataset, threat_model.removesuffix("_3d"), entry)
    file = resources.files(__package__) / "robustbench_leaderboard.csv"
    with file.open(encoding="utf-8") as lines:
        for row in csv.DictReader(lines):
            if (row["dataset"], row["threat_model"], row["model"]) == wanted:
                text = row["clean_accuracy"]
                return float(text) / 100 if text else None
    return None
