"""`docs/masking-zoo.md`, from the results that are kept: nothing is run for it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from benchmarks.masking_zoo import score
from benchmarks.masking_zoo.pair import Pair
from benchmarks.masking_zoo.pairs import CATALOGUE
from benchmarks.masking_zoo.results import Record

PAGE = Path(__file__).parents[2] / "docs" / "masking-zoo.md"
INTRODUCTION = """# The masking zoo, measured

What `make zoo` gives: each pair's PGD-20 number, what a larger attack made for the pair leaves
(the label: masked where PGD-20 is 5 points or more too high, with its exact 95% interval; a pair
whose interval holds 5 is not scored), flatguard's verdict with `--checks {checks}`, its corrected
number and its price in sample-forwards, AutoAttack's own warnings and the Indicators of Attack
Failure. Labels and verdicts share no attack. Models with a memory are labelled in their initial
state; models that look at the whole batch, with each example alone beside clean images.

{done} of {all} pairs, {kinds} kinds of defence, {images} images in all; flatguard {version}.
"""


def markdown(records: Sequence[Record]) -> str:
    """The page: what was run, the table with its scores, and every pair's kind and images."""
    checks = sorted({record.key.checks for record in records})
    versions = sorted({record.key.flatguard for record in records})
    introduction = INTRODUCTION.format(
        checks=" and ".join(checks),
        done=len(records),
        all=len(CATALOGUE),
        kinds=len({record.kind for record in records}),
        images=f"{sum(record.images for record in records):,}",
        version=" and ".join(versions),
    )
    table = score.markdown([record.result for record in records])
    return "\n".join([introduction, table, kinds_table(CATALOGUE)])


def kinds_table(pairs: Sequence[Pair]) -> str:
    """Every kind with its pairs, their base networks and images."""
    kinds: dict[str, list[Pair]] = defaultdict(list)
    for pair in pairs:
        kinds[pair.kind].append(pair)
    lines = ["## The kinds", "", "| kind | pairs: base network, images |", "|---|---|"]
    for kind in sorted(kinds):
        cells = [f"{pair.name} ({pair.network}, {pair.n})" for pair in kinds[kind]]
        lines.append(f"| {kind} | {'; '.join(cells)} |")
    return "\n".join(lines) + "\n"
