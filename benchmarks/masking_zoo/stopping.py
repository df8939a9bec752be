"""What `--until-decided` saves on the masked pairs, and whether it changes a verdict.

Each masked pair of the documented run whose answers do not change from call to call is judged at
the same level with draws. The forward passes of its checks are divided by those of the documented
run without.

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
from benchmarks.masking_zoo.pairs import find
from benchmarks.masking_zoo.results import Store, file_of
from benchmarks.masking_zoo.runner import Result, judged
from flatguard.checks.verdict import verdict_of


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


def measured(known: Result) -> Stopped | None:
    """A pair with draws; None where there is nothing to compare."""
    with tempfile.TemporaryDirectory() as folder:
        run, _ = judged(find(known.pair), known.checks, Path(folder) / "run", until_decided=True)
        if run is None or not known.forwards or known.corrected is None:
            return None
        verdict, spent = verdict_of(run), int(run.summary["check_forwards"])
    low, high = verdict.corrected_interval
    return Stopped(
        known.pair,
        spent / known.forwards,
        (known.verdict, known.mechanism),
        (verdict.verdict, verdict.mechanism),
        verdict.decided_by.sentence if verdict.decided_by is not None else "",
        low <= known.corrected <= high,
    )


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
            one = measured(record.result)
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
