"""From results to recall, false alarms, right mechanisms and prices, and to tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from rich.table import Table

from benchmarks.masking_zoo.judges import Judge, judges
from benchmarks.masking_zoo.reference import interval
from benchmarks.masking_zoo.runner import Result

ALARMS = ("masked", "overestimated")
OURS = "flatguard"
COLUMNS = (
    "pair", "PGD-20", "reference", "label", "verdict", "mechanism", "corrected", "forwards",
    *(judge.name for judge in judges()),
)  # fmt: skip
SCORED = (
    "judge", "recall", "false alarms", "right mechanisms", "no answer", "forwards a pair", "in all",
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
        mechanisms: right mechanisms, of the masked pairs that were caught; None where the judge
            names no mechanism.
        unanswered: pairs that the judge cannot judge; they count as no alarm.
        prices: in sample-forwards, of each pair.
    """

    judge: str
    recall: Share
    false_alarms: Share
    mechanisms: Share | None
    unanswered: int
    prices: tuple[int, ...]

    def row(self) -> list[str]:
        """One line of the table, in the order of `SCORED`."""
        pairs = max(1, len(self.prices))
        return [
            self.judge,
            str(self.recall),
            str(self.false_alarms),
            "names none" if self.mechanisms is None else str(self.mechanisms),
            str(self.unanswered),
            f"{sum(self.prices) / pairs:,.0f}",
            f"{sum(self.prices):,}",
        ]

    def __str__(self) -> str:
        return "; ".join(
            f"{name} {value}" for name, value in zip(SCORED[1:], self.row()[1:], strict=True)
        )


@dataclass(frozen=True)
class Opinion:
    """What a judge says of a pair: whether it warns, whether its reason is right, its price."""

    alarm: bool
    right: bool
    answered: bool
    forwards: int


def scores(results: Sequence[Result]) -> list[Score]:
    """flatguard and the other judges on the same pairs."""
    found = [_score(OURS, results, _ours)]
    for judge in judges():
        scored = _score(judge.name, results, partial(_peers, judge))
        names_none = not any(judge.explains.values())
        found.append(_without_mechanisms(scored) if names_none else scored)
    return found


def _without_mechanisms(score: Score) -> Score:
    return Score(
        score.judge, score.recall, score.false_alarms, None, score.unanswered, score.prices
    )


def _score(judge: str, results: Sequence[Result], of: Callable[[Result], Opinion]) -> Score:
    opinions = [(result, of(result)) for result in results]
    masked = [opinion for result, opinion in opinions if result.kind == "masked"]
    honest = [opinion for result, opinion in opinions if result.kind == "honest"]
    caught = [opinion for opinion in masked if opinion.alarm]
    return Score(
        judge,
        Share(len(caught), len(masked)),
        Share(sum(opinion.alarm for opinion in honest), len(honest)),
        Share(sum(opinion.right for opinion in caught), len(caught)),
        sum(not opinion.answered for _, opinion in opinions),
        tuple(opinion.forwards for _, opinion in opinions),
    )


def is_right(verdict: str, mechanism: str | None, result: Result) -> tuple[bool, bool]:
    """Whether a verdict on this pair is right, and, on a caught masked pair, its mechanism."""
    alarm = verdict in ALARMS
    caught = alarm and result.kind == "masked"
    # A weak attack has no mechanism: it is right to name none.
    named = mechanism in (result.mechanism_expected or (None,))
    return alarm == (result.kind == "masked"), caught and named


def _ours(result: Result) -> Opinion:
    right = is_right(result.verdict, result.mechanism, result)[1]
    return Opinion(result.verdict in ALARMS, right, bool(result.forwards), result.forwards or 0)


def _peers(judge: Judge, result: Result) -> Opinion:
    answer = result.peers[judge.name]
    named = {mechanism for sign in answer["named"] for mechanism in judge.explains[sign]}
    expected = set(result.mechanism_expected)
    right = answer["alarm"] and (bool(named & expected) if expected else not named)
    return Opinion(answer["alarm"], right, answer["answered"], answer["forwards"])


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
        *(_cell(result.peers[judge.name]) for judge in judges()),
    ]


def _cell(answer: dict[str, Any]) -> str:
    """What is named in an alarm, and the price."""
    if not answer["answered"]:
        return f"no answer · {answer['forwards']:,}"
    named = ", ".join(answer["named"]) if answer["alarm"] else "–"
    return f"{named} · {answer['forwards']:,}"


def rich_table(results: Sequence[Result]) -> Table:
    """For the terminal."""
    table = Table(*COLUMNS)
    for result in results:
        table.add_row(*row(result))
    return table


def table_of(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(cells) + " |" for cells in rows)])


def markdown(results: Sequence[Result]) -> str:
    """The table and the scores, for a file."""
    return f"{pairs_table(results)}\n\n{scores_table(results)}\n"


def pairs_table(results: Sequence[Result]) -> str:
    """A line for each pair."""
    return table_of(COLUMNS, [row(result) for result in results])


def scores_table(results: Sequence[Result]) -> str:
    """A line for each judge."""
    return table_of(SCORED, [score.row() for score in scores(results)])


def summary(results: Sequence[Result]) -> str:
    """What the run shows, in a few lines."""
    kinds = [result.kind for result in results]
    counts = ", ".join(f"{kinds.count(kind)} {kind}" for kind in ("masked", "honest", "unscored"))
    lines = [f"{len(results)} pairs: {counts}"]
    return "\n".join([*lines, *(f"{score.judge}: {score}" for score in scores(results))])
