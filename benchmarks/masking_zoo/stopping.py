"""What `--until-decided` saves on the masked pairs, and whether it changes a verdict.

Each masked pair of the documented run whose answers do not change from call to call is judged
twice at the same level, with draws and without, by the same code and weights. The forward passes of
the checks are divided.

`python -m benchmarks.masking_zoo.stopping` prints a line for each pair, and then the median.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch

import flatguard  # noqa: F401  (makes torchattacks and pyautoattack importable together)
from benchmarks.masking_zoo import train
from benchmarks.masking_zoo.attacks import Survivors
from benchmarks.masking_zoo.pair import Pair
from benchmarks.masking_zoo.pairs import find
from benchmarks.masking_zoo.results import Store, file_of
from benchmarks.masking_zoo.runner import judged
from flatguard.checks.verdict import Verdict, verdict_of


@dataclass(frozen=True)
class Stopped:
    """A pair judged with draws.

    Attributes:
        pair: its name.
        share: of the forward passes of the checks without draws.
        before, now: the verdict and its mechanism without draws, and with them.
        by: what decided, in words; empty where all survivors were attacked.
        within: whether the corrected number without draws is in the interval.
    """

    pair: str
    share: float
    before: tuple[str, str | None]
    now: tuple[str, str | None]
    by: str
    within: bool

    @property
    def line(self) -> str:
        """It as a line."""
        word, mechanism = self.now
        changed = "" if self.now == self.before else f", was {self.before[0]} {self.before[1]}"
        outside = "" if self.within else ", the interval misses the number without draws"
        return (
            f"{self.pair}: {self.share:.1%}; {word} {mechanism or ''}{changed}{outside}; "
            f"{self.by or 'not decided by draws'}"
        )


@dataclass(frozen=True)
class _Judged:
    """A verdict and the forward passes of its checks."""

    verdict: Verdict
    forwards: int

    @property
    def words(self) -> tuple[str, str | None]:
        """The verdict's word and its mechanism."""
        return self.verdict.verdict, self.verdict.mechanism


def measured(pair: Pair, checks: str) -> Stopped | None:
    """A pair without draws and with them; None where flatguard has no run of it."""
    without = _judged(pair, checks, until_decided=False)
    drawn = _judged(pair, checks, until_decided=True)
    if without is None or drawn is None:
        return None
    low, high = drawn.verdict.corrected_interval
    by = drawn.verdict.decided_by
    return Stopped(
        pair.name,
        drawn.forwards / without.forwards,
        without.words,
        drawn.words,
        by.sentence if by is not None else "",
        low <= without.verdict.corrected_robust_accuracy <= high,
    )


def _judged(pair: Pair, checks: str, until_decided: bool) -> _Judged | None:
    with tempfile.TemporaryDirectory() as folder:
        run, _ = judged(pair, checks, Path(folder) / "run", until_decided)
        return None if run is None else _Judged(verdict_of(run), run.summary["check_forwards"])


def main() -> None:
    """Judge the masked pairs."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.masking_zoo.stopping")
    parser.add_argument("--checks", choices=("fast", "standard"), default="standard")
    parser.add_argument("--only", default="", help="pairs whose name has this in it")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    train.train_all()
    found = []
    for record in Store(file_of(asked.checks)).records().values():
        pair = find(record.result.pair)
        steady = pair.survivors is Survivors and not pair.random and pair.missing() is None
        if asked.only in pair.name and steady and record.result.kind == "masked":
            one = measured(pair, asked.checks)
            if one is not None:
                found.append(one)
                print(one.line, flush=True)
    decided = [one for one in found if one.by]
    changed = [one for one in found if one.now != one.before]
    print(
        f"{len(found)} masked pairs, median {statistics.median(one.share for one in found):.1%}; "
        f"{len(decided)} decided by draws, {len(changed)} verdicts or mechanisms changed, "
        f"{sum(not one.within for one in found)} intervals miss the number without draws"
    )


if __name__ == "__main__":
    main()
