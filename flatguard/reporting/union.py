"""The union of threats: several runs on the same samples, of which each has to be withstood.

A sample is robust under the union if it is robust in every run, so the union's robust accuracy is
that of each sample's worst case (Tramèr and Boneh 2019; Maini et al. 2020).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import pandas as pd

from flatguard.checks.error_rates import within
from flatguard.checks.statistics import CONFIDENCE_LEVEL, interval
from flatguard.checks.verdict import EXIT_CODES, Word
from flatguard.environment.system import quoted
from flatguard.errors import UsageError
from flatguard.reporting.json_report import Part
from flatguard.reporting.judged_run import JudgedRun
from flatguard.reporting.union_page import union_page
from flatguard.runs.json_files import write_text
from flatguard.runs.run import Run

UNION, PAGE, SAMPLES = "union.json", "union.html", "union.csv"
_WORST_FIRST = (1, 3, 0)
"""Exit codes: refuted, undecided, supported."""


class Member(Part):
    """One of the threats: what its own run says.

    Attributes:
        run: its folder, from the union's.
        threat: norm and radius.
        only: samples that only this threat fools, after everything that was tried.
    """

    run: str
    threat: str
    attack: str
    verdict: Word
    mechanism: str | None
    sentence: str
    robust_accuracy: float
    corrected_robust_accuracy: float
    only: int


class Union(Part):
    """The verdict on the union, and what it rests on.

    Attributes:
        verdict: on the union's own number.
        robust_accuracy: the share of samples that are robust in every run.
        corrected_robust_accuracy: of those that nothing that was tried in any run fools.
        corrected_interval: its exact 95% interval.
        overestimate: by how much the union's number is too high.
        exit_code: the worst of all verdicts': 1 before 3 before 0.
    """

    schema_version: Literal[1] = 1
    verdict: Word
    sentence: str
    model: str
    samples: int
    data_sha256: str
    robust_accuracy: float
    robust_interval: tuple[float, float]
    corrected_robust_accuracy: float
    corrected_interval: tuple[float, float]
    overestimate: float
    tolerance: float
    confidence_level: float = CONFIDENCE_LEVEL
    exit_code: int
    members: tuple[Member, ...]


def unite(runs: Sequence[Run], out: Path) -> Union:
    """Judge the union of these runs, and write `union.json`, `union.html` and `union.csv`.

    Args:
        runs: judged runs of one model on the same samples, one for each threat.
        out: a folder; its files of an earlier union are replaced.

    Raises:
        UsageError: fewer than two runs, an incomplete one, or other samples or weights.
        RunFolderError: a run is damaged, or has no verdict yet.
    """
    _check_same_task(runs)
    judged = [JudgedRun.load(run) for run in runs]
    table = by_sample(judged)
    union = _union(judged, table, out)
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / SAMPLES, table.to_csv(index=False))
    write_text(out / PAGE, union_page(union))
    write_text(out / UNION, union.model_dump_json(indent=1))
    return union


def by_sample(judged: Sequence[JudgedRun]) -> pd.DataFrame:
    """A row for each sample: whether it is `robust` and `withstands` all, and each threat alone.

    `withstands` counts everything that was tried, `robust` the audited attacks.
    """
    table = pd.DataFrame({"sample": judged[0].samples["sample"].to_numpy()})
    robust, withstands = [], []
    for one in judged:
        left = one.evidence.standing - one.evidence.fooled
        table[f"robust {one.budget}"] = one.samples["robust"].to_numpy()
        table[f"withstands {one.budget}"] = table["sample"].isin(left)
        robust.append(f"robust {one.budget}")
        withstands.append(f"withstands {one.budget}")
    table.insert(1, "robust", table[robust].all(axis=1))
    table.insert(2, "withstands", table[withstands].all(axis=1))
    return table


def _union(judged: Sequence[JudgedRun], table: pd.DataFrame, out: Path) -> Union:
    n, tolerance = len(table), max(one.verdict.tolerance for one in judged)
    robust, left = int(table["robust"].sum()), int(table["withstands"].sum())
    excess = max(0, robust - left)
    words = [one.verdict.verdict for one in judged]
    word = _word(words, too_high=not within(excess, n, tolerance))
    codes = [EXIT_CODES[each] for each in (word, *words)]
    return Union(
        verdict=word,
        sentence=_sentence(word, judged, robust / n, left / n),
        model=judged[0].run.manifest.target.name,
        samples=n,
        data_sha256=judged[0].run.manifest.data.sha256,
        robust_accuracy=robust / n,
        robust_interval=interval(robust, n),
        corrected_robust_accuracy=left / n,
        corrected_interval=interval(left, n),
        overestimate=excess / n,
        tolerance=tolerance,
        exit_code=min(codes, key=_WORST_FIRST.index),
        members=tuple(_member(one, judged, table, out) for one in judged),
    )


def _word(words: Sequence[Word], too_high: bool) -> Word:
    """The word for the union's own number.

    A number that is too high is masked where a run's is. A sample counts where any threat fools it,
    so one run without a decision leaves the union without one; one that is vulnerable decides.
    """
    if too_high:
        return "masked" if "masked" in words else "overestimated"
    if "vulnerable" in words:
        return "vulnerable"
    return "inconclusive" if "inconclusive" in words else "consistent"


def _sentence(word: Word, judged: Sequence[JudgedRun], was: float, now: float) -> str:
    names = " and ".join(str(one.budget) for one in judged)
    if word in ("masked", "overestimated"):
        return f"{word}: {was:.1%} was reported under {names} together, at most {now:.1%} is true"
    if word == "vulnerable":
        weak = next(one for one in judged if one.verdict.verdict == "vulnerable")
        return f"vulnerable: {weak.budget} alone leaves no more than chance"
    if word == "inconclusive":
        open_ = next(one for one in judged if one.verdict.verdict == "inconclusive")
        return f"inconclusive: the run under {open_.budget} is"
    alone = [one for one in judged if EXIT_CODES[one.verdict.verdict] == 1]
    but = [f"; but the number under {one.budget} alone is {one.verdict.verdict}" for one in alone]
    return (
        f"consistent: no evidence against {was:.1%} under {names} together; the worst case over "
        f"everything tried is {now:.1%}{''.join(but)}"
    )


def _member(one: JudgedRun, judged: Sequence[JudgedRun], table: pd.DataFrame, out: Path) -> Member:
    falls = ~table[f"withstands {one.budget}"]
    for other in judged:
        if other is not one:
            falls &= table[f"withstands {other.budget}"]
    verdict = one.verdict
    return Member(
        run=_seen_from(one.run.path, out),
        threat=str(one.budget),
        attack=one.run.request.attack,
        verdict=verdict.verdict,
        mechanism=verdict.mechanism,
        sentence=verdict.sentence,
        robust_accuracy=verdict.robust_accuracy,
        corrected_robust_accuracy=verdict.corrected_robust_accuracy,
        only=int(falls.sum()),
    )


def _seen_from(path: Path, out: Path) -> str:
    try:
        return path.resolve().relative_to(out.resolve()).as_posix()
    except ValueError:
        return path.as_posix()


def _check_same_task(runs: Sequence[Run]) -> None:
    if len(runs) < 2:
        raise UsageError(f"a union needs two runs or more, got {len(runs)}")
    first = runs[0]
    budgets = [str(run.request.budget()) for run in runs]
    twice = next((each for each in budgets if budgets.count(each) > 1), None)
    if twice is not None:
        raise UsageError(f"two of these runs are under {twice}: a union takes each threat once")
    for run in runs:
        if not run.complete:
            raise UsageError(
                f"{run.storage} is incomplete; to finish it: flatguard resume "
                f"{quoted(run.storage)}{run.request.consent}"
            )
        for what, one, other in (
            ("data", first.manifest.data.sha256, run.manifest.data.sha256),
            ("weights", first.manifest.target.weights_sha256, run.manifest.target.weights_sha256),
        ):
            if one != other:
                raise UsageError(
                    f"{first.path} and {run.path} are of different {what} ({one[:12]} against "
                    f"{other[:12]}), so their samples cannot be united"
                )
