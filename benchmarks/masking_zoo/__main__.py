"""`make zoo`: every pair, its measured label, and who was right about it.

Labels and trained weights are kept in a git-ignored cache beside this file; `--fresh` measures all
labels anew. Results are kept one a line in `results/LEVEL.jsonl`, which is committed: what is there
is taken, and a run that was stopped goes on; `--again` judges anew, and `--page` writes
`docs/masking-zoo.md` from what is there. Networks that are not here are left out, saying so.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch
from rich.console import Console

import flatguard
from benchmarks.masking_zoo import document, fingerprint, score, train
from benchmarks.masking_zoo.held_out import held_out
from benchmarks.masking_zoo.pair import Pair
from benchmarks.masking_zoo.pairs import CATALOGUE
from benchmarks.masking_zoo.results import Key, Record, Store, file_of
from benchmarks.masking_zoo.runner import Asked, Result, label_by_name, run_by_name

T = TypeVar("T")
KNOWN = "fast"
"""The level whose labels, and answers of the other judges, every other level takes."""

WIDTH = 190
"""Of tables that are written to no terminal."""

console = Console(highlight=False)
if not console.is_terminal:
    console = Console(highlight=False, width=WIDTH)


def main() -> None:
    """Run the pairs that are asked for, print as they come, and write the tables."""
    options = parser().parse_args()
    pairs = [on_fewer(pair, options.images) for pair in chosen(options.only)]
    store = Store(options.results or file_of(options.checks))
    if options.page:
        write_page(options.workers)
        return
    train.train_all()
    if options.labels:
        for line in pool_of(options.workers, label_by_name, pairs, options.fresh):
            say(line)
        return
    began = time.perf_counter()
    again = options.again or options.fresh
    records = run_all(
        pairs, options.checks, store, options.workers, again, options.fresh, options.images
    )
    results = [record.result for record in records]
    write(results, options.out)
    console.print(score.rich_table(results))
    for result in results:
        if result.problem:
            say(f"{result.pair}: {result.problem}")
    say(score.summary(results))
    say(f"{time.perf_counter() - began:.0f} s; written to {options.out} and {store.file}")


def on_fewer(pair: Pair, images: int | None) -> Pair:
    """The pair with its first images only."""
    return pair if images is None else replace(pair, n=min(pair.n, images))


def run_all(
    pairs: Sequence[Pair],
    checks: str,
    store: Store,
    workers: int,
    again: bool,
    fresh: bool,
    images: int | None = None,
) -> list[Record]:
    """The records of these pairs, in their order: those that are kept, and the others run."""
    keys = {pair.name: key_of(pair, checks) for pair in pairs}
    kept = {} if again else {name: store.find(key) for name, key in keys.items()}
    done = {name: record for name, record in kept.items() if record is not None}
    if done:
        say(f"{len(done)} of {len(pairs)} pairs are in {store.file}")
    left = [pair for pair in pairs if pair.name not in done]
    known = {} if fresh or checks == KNOWN else labelled_before(left)
    job = partial(run_by_name, asked=Asked(checks, images, known))
    for result in pool_of(workers, job, left, fresh):
        pair = next(pair for pair in pairs if pair.name == result.pair)
        done[pair.name] = Record(keys[pair.name], pair.kind, pair.n, result)
        store.append(done[pair.name])
        say(f"[{len(done)}/{len(pairs)}] " + " | ".join(score.row(result)))
    return [done[pair.name] for pair in pairs if pair.name in done]


def labelled_before(pairs: Sequence[Pair]) -> dict[str, Result]:
    """The documented run's results of these pairs, as they are, on all their images."""
    kept = Store(file_of(KNOWN)).records()
    whole = [pair for pair in CATALOGUE if pair.name in {each.name for each in pairs}]
    found = {pair.name: kept.get((pair.name, KNOWN)) for pair in whole}
    return {
        pair.name: record.result
        for pair in whole
        if (record := found[pair.name]) is not None and record.key == key_of(pair, KNOWN)
    }


def write_page(workers: int) -> None:
    """`docs/masking-zoo.md` from the records of all levels, in the catalogue's order."""
    levels = {}
    for checks in document.LEVELS:
        kept = Store(file_of(checks)).records()
        names = [pair.name for pair in CATALOGUE if (pair.name, checks) in kept]
        if names:
            levels[checks] = [kept[name, checks].result for name in names]
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        found = {checks: held_out(results, pool) for checks, results in levels.items()}
    held = {checks: one for checks, one in found.items() if one.moved}
    document.PAGE.write_text(document.page(levels, held, CATALOGUE), "utf-8")
    counts = ", ".join(f"{checks} {len(results)}" for checks, results in levels.items())
    say(f"{counts} of {len(CATALOGUE)} pairs; kinds left out at: {', '.join(held) or 'no level'}")
    say(f"written to {document.PAGE}")


def key_of(pair: Pair, checks: str) -> Key:
    """What the pair's stored result has to match."""
    return Key(pair.name, checks, flatguard.__version__, fingerprint.of_pair(pair, pair.build()))


def say(line: str) -> None:
    """A line as it is, however long."""
    console.print(line, markup=False, soft_wrap=True)


def parser() -> argparse.ArgumentParser:
    """The options."""
    found = argparse.ArgumentParser(prog="python -m benchmarks.masking_zoo", description=__doc__)
    found.add_argument(
        "--only", default="", help="pairs whose name or kind has one of these in it, by commas"
    )
    found.add_argument("--workers", type=int, default=2, help="processes, one torch thread each")
    found.add_argument("--fresh", action="store_true", help="measure labels that are kept anew")
    found.add_argument("--again", action="store_true", help="judge anew what results are kept of")
    found.add_argument("--results", type=Path, help="the file that results are kept in")
    found.add_argument(
        "--page", action="store_true", help="only write docs/masking-zoo.md from what is kept"
    )
    found.add_argument("--checks", default="fast", help="fast, standard or full")
    found.add_argument("--images", type=int, help="judge a pair's first ones only; labels take all")
    found.add_argument("--labels", action="store_true", help="only measure what is missing")
    found.add_argument("--out", type=Path, default=Path("reports") / "masking-zoo")
    return found


def chosen(substrings: str) -> list[Pair]:
    """The pairs that are asked for and can be had; the others are named with the reason."""
    parts = substrings.split(",")
    wanted = [
        pair for pair in CATALOGUE if any(part in f"{pair.name}\n{pair.kind}" for part in parts)
    ]
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
