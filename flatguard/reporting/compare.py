"""Compares two runs over the same samples: paired differences with exact tests."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd

from flatguard.checks.finding import Finding, Status
from flatguard.checks.statistics import CONFIDENCE_LEVEL, interval, mcnemar
from flatguard.checks.verdict import Word
from flatguard.environment.system import quoted
from flatguard.errors import UsageError
from flatguard.geometry.measures import KAPPA, measure_in
from flatguard.reporting.json_report import Part
from flatguard.reporting.judged_run import JudgedRun
from flatguard.reporting.summaries import finite_median
from flatguard.runs.run import Run

_EACH_LEVEL = 1.0 - (1.0 - CONFIDENCE_LEVEL) / 2.0
"""The level of each of two intervals that hold together with at least 95% (Bonferroni)."""


class Side(Part):
    """One of the two runs."""

    run: str
    model: str
    attack: str
    budget: str
    verdict: Word
    sentence: str


class Setting(Part):
    """A setting that differs between the two runs."""

    name: str
    first: str
    second: str


class Paired(Part):
    """A share in both runs, and its difference over the same samples.

    Attributes:
        name: what is counted.
        first: its share in the first run.
        second: its share in the second run.
        difference: second minus first.
        interval: at least a 95% interval of the difference, from the exact intervals of the two
            shares that it consists of.
        only_first: numbers of the samples that are correct in the first run only.
        only_second: numbers of the samples that are correct in the second run only.
        p_value: exact two-sided McNemar test.
    """

    name: str
    first: float
    second: float
    difference: float
    interval: tuple[float, float]
    only_first: tuple[int, ...]
    only_second: tuple[int, ...]
    p_value: float


class Shift(Part):
    """How a measured value differs, sample by sample.

    Attributes:
        name: name of the value.
        samples: how many samples have it in both runs.
        median: median of second minus first.
        rose: how many samples have a larger value in the second run.
        fell: how many samples have a smaller value in the second run.
        p_value: exact two-sided sign test.
    """

    name: str
    samples: int
    median: float | None
    rose: int
    fell: int
    p_value: float


class CheckPair(Part):
    """One check in both runs; None where a run has no such check."""

    check: str
    first: Status | None
    second: Status | None
    first_value: float | None
    second_value: float | None
    changed: bool


class Comparison(Part):
    """The comparison of two runs."""

    schema_version: Literal[1] = 1
    samples: int
    data_sha256: str
    first: Side
    second: Side
    settings: tuple[Setting, ...]
    accuracies: tuple[Paired, ...]
    shifts: tuple[Shift, ...]
    checks: tuple[CheckPair, ...]


def compare_runs(first: Run, second: Run) -> Comparison:
    """Compare two judged runs, sample by sample.

    Raises:
        UsageError: the runs are over different samples, or one of them is incomplete.
        RunFolderError: one run is damaged, or has no verdict yet.
    """
    _check_paired(first, second)
    one, other = JudgedRun.load(first), JudgedRun.load(second)
    return Comparison(
        samples=len(one.samples),
        data_sha256=first.manifest.data.sha256,
        first=_side(one),
        second=_side(other),
        settings=tuple(_settings(first, second)),
        accuracies=tuple(_accuracies(one, other)),
        shifts=tuple(_shifts(one.samples, other.samples)),
        checks=tuple(_checks(one.verdict.findings, other.verdict.findings)),
    )


def _check_paired(first: Run, second: Run) -> None:
    one, other = first.manifest.data, second.manifest.data
    if one.sha256 != other.sha256:
        counts = first.request.n_examples, second.request.n_examples
        why = f"{counts[0]} samples of {one.name} against {counts[1]} of {other.name}"
        if counts[0] == counts[1]:
            why = f"{one.name} with hash {one.sha256[:12]} against {other.name} {other.sha256[:12]}"
        raise UsageError(
            f"{first.path} and {second.path} are over different data ({why}), so their samples "
            "cannot be paired; evaluate both with the same --dataset and --n-examples"
        )
    for run in (first, second):
        if not run.complete:
            done, planned = len(run.blocks), len(run.manifest.blocks)
            raise UsageError(
                f"{run.storage} is incomplete: {done} of {planned} blocks; to finish it: flatguard "
                f"resume {quoted(run.storage)}{run.request.consent}"
            )


def _side(judged: JudgedRun) -> Side:
    return Side(
        run=judged.run.path.name,
        model=judged.run.manifest.target.name,
        attack=judged.run.request.attack,
        budget=str(judged.budget),
        verdict=judged.verdict.verdict,
        sentence=judged.verdict.sentence,
    )


def _settings(first: Run, second: Run) -> list[Setting]:
    one, other = _described(first), _described(second)
    return [
        Setting(name=name, first=one.get(name, "–"), second=other.get(name, "–"))
        for name in {**one, **other}
        if one.get(name) != other.get(name)
    ]


def _described(run: Run) -> dict[str, str]:
    manifest: dict[str, Any] = run.manifest.model_dump(mode="json")
    request = {name: value for name, value in manifest["request"].items() if name != "attack_args"}
    found = {
        **request,
        **{f"attack: {name}": value for name, value in manifest["attack_args"].items()},
        "weights": manifest["target"]["weights_sha256"][:12],
        "device": manifest["device"]["type"],
        "flatguard": manifest["versions"].get("flatguard"),
        "torch": manifest["versions"].get("torch"),
    }
    return {k: v if isinstance(v, str) else json.dumps(v) for k, v in found.items()}


def _accuracies(one: JudgedRun, other: JudgedRun) -> list[Paired]:
    correct = {
        "clean accuracy": [run.samples["clean_correct"].to_numpy(bool) for run in (one, other)],
        "robust accuracy, reported": [run.samples["robust"].to_numpy(bool) for run in (one, other)],
        "robust accuracy, corrected": [_survives_everything(run) for run in (one, other)],
    }
    return [_paired(name, first, second) for name, (first, second) in correct.items()]


def _survives_everything(judged: JudgedRun) -> np.ndarray:
    fooled = judged.samples["sample"].isin(judged.evidence.fooled)
    return (judged.samples["robust"] & ~fooled).to_numpy(bool)


def _paired(name: str, first: np.ndarray, second: np.ndarray) -> Paired:
    n = len(first)
    only_first, only_second = np.flatnonzero(first & ~second), np.flatnonzero(second & ~first)
    gained, lost = len(only_second), len(only_first)
    gain, loss = (interval(count, n, _EACH_LEVEL) for count in (gained, lost))
    return Paired(
        name=name,
        first=float(first.mean()),
        second=float(second.mean()),
        difference=(gained - lost) / n,
        interval=(gain[0] - loss[1], gain[1] - loss[0]),
        only_first=tuple(only_first.tolist()),
        only_second=tuple(only_second.tolist()),
        p_value=mcnemar(gained, lost),
    )


def _shifts(first: pd.DataFrame, second: pd.DataFrame) -> list[Shift]:
    measures = {measure_in(table.columns) for table in (first, second)}
    measure = measures.pop() if len(measures) == 1 else KAPPA  # missing in one of them
    columns = {
        f"clean_{measure.column}": f"{measure.log_name}, clean",
        f"adv_{measure.column}": f"{measure.log_name}, adversarial",
        "clean_margin": "margin, clean", "adv_loss": "loss, adversarial", "distance": "distance",
    }  # fmt: skip
    return [
        _shift(name, second[column].to_numpy(float) - first[column].to_numpy(float))
        for column, name in columns.items()
    ]


def _shift(name: str, change: np.ndarray) -> Shift:
    known = change[np.isfinite(change)]
    larger, smaller = int((known > 0).sum()), int((known < 0).sum())
    return Shift(
        name=name,
        samples=len(known),
        median=finite_median(change),
        rose=larger,
        fell=smaller,
        p_value=mcnemar(larger, smaller),
    )


def _checks(first: Sequence[Finding], second: Sequence[Finding]) -> list[CheckPair]:
    one = {finding.check: finding for finding in first}
    other = {finding.check: finding for finding in second}
    found = []
    for name in {**one, **other}:
        a, b = one.get(name), other.get(name)
        statuses = a.status if a else None, b.status if b else None
        found.append(
            CheckPair(
                check=name,
                first=statuses[0],
                second=statuses[1],
                first_value=a.value if a else None,
                second_value=b.value if b else None,
                changed=statuses[0] != statuses[1],
            )
        )
    return found
