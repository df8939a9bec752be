"""`make zoo`: every pair, its measured label, and who was right about it.

Labels and trained weights are kept in a git-ignored cache beside this file; `--fresh` measures all
labels anew. Networks that are not here are left out, saying so.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch
from rich.console import Console

from benchmarks.masking_zoo import score, train
from benchmarks.masking_zoo.pair import Pair
from benchmarks.masking_zoo.pairs import CATALOGUE
from benchmarks.masking_zoo.runner import Result, label_by_name, run_by_name

T = TypeVar("T")
WIDTH = 190
"""Of tables that are written to no terminal."""

console = Console(highlight=False)
if not console.is_terminal:
    console = Console(highlight=False, width=WIDTH)


def main() -> None:
    """Run the pairs that are asked for, print as they come, and write the tables."""
    options = parser().parse_args()
    pairs = chosen(options.only)
    train.train_all()
    if options.labels:
        for line in pool_of(options.workers, label_by_name, pairs, options.fresh):
            say(line)
        return
    began = time.perf_counter()
    results: list[Result] = []
    job = partial(run_by_name, checks=options.checks, images=options.images)
    for result in pool_of(options.workers, job, pairs, options.fresh):
        results.append(result)
        say(f"[{len(results)}/{len(pairs)}] " + " | ".join(score.row(result)))
        results.sort(key=lambda result: [pair.name for pair in pairs].index(result.pair))
        write(results, options.out)
    console.print(score.rich_table(results))
    for result in results:
        if result.problem:
            say(f"{result.pair}: {result.problem}")
    say(score.summary(results))
    say(f"{time.perf_counter() - began:.0f} s; written to {options.out}")


def say(line: str) -> None:
    """A line as it is, however long."""
    console.print(line, markup=False, soft_wrap=True)


def parser() -> argparse.ArgumentParser:
    """The options."""
    found = argparse.ArgumentParser(prog="python -m benchmarks.masking_zoo", description=__doc__)
    found.add_argument(
        "--only", default="", help="pairs whose name has one of these in it, by commas"
    )
    found.add_argument("--workers", type=int, default=2, help="processes, one torch thread each")
    found.add_argument("--fresh", action="store_true", help="measure labels that are kept anew")
    found.add_argument("--checks", default="fast", help="fast, standard or full")
    found.add_argument("--images", type=int, help="judge a pair's first ones only; labels take all")
    found.add_argument("--labels", action="store_true", help="only measure what is missing")
    found.add_argument("--out", type=Path, default=Path("reports") / "masking-zoo")
    return found


def chosen(substrings: str) -> list[Pair]:
    """The pairs that are asked for and can be had; the others are named with the reason."""
    parts = substrings.split(",")
    wanted = [pair for pair in CATALOGUE if any(part in pair.name for part in parts)]
    for pair in wanted:
        if (why := pair.missing()) is not None:
            say(f"left out: {pair.name}: {why}")
    return [pair for pair in wanted if pair.missing() is None]


def pool_of(
    workers: int, job: Callable[[str, bool], T], pairs: Sequence[Pair], fresh: bool
) -> Iterator[T]:
    """What the job returns for each pair, as it comes, from processes with one torch thread.

    A pair that fails is named, and the others go on.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        workers, mp_context=context, initializer=torch.set_num_threads, initargs=(1,)
    ) as pool:
        names = {pool.submit(job, pair.name, fresh): pair.name for pair in pairs}
        for done in as_completed(names):
            if (error := done.exception()) is not None:
                say(f"failed: {names[done]}: {type(error).__name__}: {error}")
            else:
                yield done.result()


def write(results: Sequence[Result], out: Path) -> None:
    """`results.json` and `table.md`."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "results.json").write_text(
        json.dumps([asdict(result) for result in results], indent=2), "utf-8"
    )
    (out / "table.md").write_text(score.markdown(results), "utf-8")


if __name__ == "__main__":
    main()
