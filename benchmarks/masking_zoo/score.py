"""From results to recall, false alarms and right mechanisms, and to tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from rich.table import Table

from benchmarks.masking_zoo import baselines, ioaf
from benchmarks.masking_zoo.reference import interval
from benchmarks.masking_zoo.runner import Result

ALARMS = ("masked", "overestimated")
COLUMNS = (
    "pair", "PGD-20", "reference", "label", "verdict", "mechanism", "corrected", "forwards",
    "AutoAttack", "IoAF",
)  # fmt: skip


@dataclass(frozen=True)
class Share:
    """k of n, with the exact 95% interval."""

    k: int
    n: int

    def __str__(self) -> str:
        if not self.n:
            return "0/0"
        low, high = interval(self.k, self.n)
        return f"{self.k}/{self.n} ({low:.0%} to {high:.0%})"


@dataclass(frozen=True)
class Score:
    """Of one judge.

    Attributes:
        recall: alarms, of the pairs labelled masked.
        false_alarms: alarms, of the pairs labelled honest.
        mechanisms: right mechanisms, of the masked pairs that were caught.
    """

    judge: str
    recall: Share
    false_alarms: Share
    mechanisms: Share


Alarm = Callable[[Result], bool]


def scores(results: Sequence[Result]) -> list[Score]:
    """flatguard, AutoAttack's flags and IoAF on the same pairs."""
    return [
        _score("flatguard", results, lambda r: r.verdict in ALARMS, _named_right),
        _score(
            "AutoAttack's flags", results, lambda r: bool(r.flags),
            lambda r: _explains(r, baselines.EXPLAINS, r.flags),
        ),
        _score(
            "IoAF", results, lambda r: bool(r.raised),
            lambda r: _explains(r, ioaf.EXPLAINS, r.raised),
        ),
    ]  # fmt: skip


def _score(judge: str, results: Sequence[Result], alarm: Alarm, right: Alarm) -> Score:
    masked = [r for r in results if r.kind == "masked"]
    honest = [r for r in results if r.kind == "honest"]
    caught = [r for r in masked if alarm(r)]
    return Score(
        judge,
        Share(len(caught), len(masked)),
        Share(sum(map(alarm, honest)), len(honest)),
        Share(sum(map(right, caught)), len(caught)),
    )


def _named_right(result: Result) -> bool:
    return result.mechanism in result.mechanism_expected


def _explains(result: Result, explains: dict[str, frozenset[str]], raised: Iterable[str]) -> bool:
    named = {mechanism for name in raised for mechanism in explains[name]}
    return bool(named & set(result.mechanism_expected))


def row(result: Result) -> list[str]:
    """One line of the table, in the order of `COLUMNS`."""
    label = result.label
    n = label["n"]
    audited = f"{label['audited'] / n:.1%}" + (" (by Square)" if label["error"] else "")
    bounds = f"+{label['overestimate']:.1%} [{label['low']:.1%}, {label['high']:.1%}]"
    return [
        result.pair,
        audited,
        f"{label['left'] / n:.1%}",
        f"{label['kind']} {bounds}",
        result.verdict,
        result.mechanism or "",
        "" if result.corrected is None else f"{result.corrected:.1%}",
        "" if result.forwards is None else f"{result.forwards:,}",
        ", ".join(result.flags),
        ", ".join(result.raised),
    ]


def rich_table(results: Sequence[Result]) -> Table:
    """For the terminal."""
    table = Table(*COLUMNS)
    for result in results:
        table.add_row(*row(result))
    return table


def markdown(results: Sequence[Result]) -> str:
    """The table and the scores, for a file."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "|---" * len(COLUMNS) + "|"]
    lines += ["| " + " | ".join(row(result)) + " |" for result in results]
    lines += ["", "| judge | recall | false alarms | right mechanisms |", "|---|---|---|---|"]
    lines += [
        f"| {s.judge} | {s.recall} | {s.false_alarms} | {s.mechanisms} |" for s in scores(results)
    ]
    return "\n".join(lines) + "\n"


def summary(results: Sequence[Result]) -> str:
    """What the run shows, in a few lines."""
    kinds = [result.kind for result in results]
    counts = ", ".join(f"{kinds.count(kind)} {kind}" for kind in ("masked", "honest", "unscored"))
    lines = [f"{len(results)} pairs: {counts}"]
    lines += [
        f"{s.judge}: recall {s.recall}; false alarms {s.false_alarms}; "
        f"right mechanisms {s.mechanisms}"
        for s in scores(results)
    ]
    return "\n".join(lines)
