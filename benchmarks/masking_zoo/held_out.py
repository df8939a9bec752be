"""Leave one kind out: flatguard's thresholds chosen on all other kinds, then used on this one.

The kept evidence of the pairs is judged again; no model is called. The thresholds are the decimal
constants of the modules that judge (`JUDGING`), and the tolerance; each is tried at `MULTIPLES` of
its value (of its distance to 1, where it is above 1/2). On the other kinds one threshold after the
other is set to the value with the most right verdicts and right mechanisms; of equal values to the
middle one, of two in the middle to the one that is farther from today's. So today's value, which
was set with all kinds in view, has no advantage, beyond being the middle of what is tried.

Two limits. The evidence was gathered with today's thresholds, and some of them decide what is
gathered. And the counts that are integers, and numbers within expressions, stay.
"""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from benchmarks.masking_zoo import kept_evidence
from benchmarks.masking_zoo.runner import Result
from benchmarks.masking_zoo.score import ALARMS, Share, is_right, table_of
from flatguard.checks import verdict as verdicts
from flatguard.checks.check import Check
from flatguard.checks.evidence import Evidence
from flatguard.checks.registry import load_checks
from flatguard.checks.verdict import judge
from flatguard.request import TOLERANCE

JUDGING = (
    "gradient_evidence", "mechanism", "mechanism_conditions", "chance", "state_evidence", "verdict",
)  # fmt: skip
"""The modules of `flatguard.checks` whose constants decide words and mechanisms."""

MULTIPLES = (0.25, 0.5, 1.0, 2.0, 4.0)
"""What is tried; 1 is today's value."""

TOLERATED = "tolerance"

Setting = tuple[tuple[str, float], ...]
"""The thresholds that differ from today's, by name; an empty one is today's."""

Words = tuple[str, str | None]
"""A verdict and its mechanism."""


@dataclass(frozen=True)
class Threshold:
    """A named number of the judgement.

    Attributes:
        name: `module.NAME`, or `tolerance`.
        value: today's.
    """

    name: str
    value: float

    def at(self, multiple: float) -> float:
        """The value at a multiple; near 1 it is the distance to 1 that is multiplied."""
        if 0.5 < self.value <= 1:
            return max(0.0, 1 - (1 - self.value) * multiple)
        return self.value * multiple


def thresholds() -> list[Threshold]:
    """All of them, as they stand in the code."""
    found = [Threshold(TOLERATED, TOLERANCE)]
    for module in JUDGING:
        loaded = importlib.import_module(f"flatguard.checks.{module}")
        tree = ast.parse(Path(str(loaded.__file__)).read_text("utf-8"))
        for name in (target for node in tree.body for target in _assigned(node)):
            value = getattr(loaded, name)
            if isinstance(value, float):
                found.append(Threshold(f"{module}.{name}", value))
    return found


def _assigned(node: ast.stmt) -> list[str]:
    """The upper-case names of an assignment."""
    if not isinstance(node, ast.Assign):
        return []
    names = []
    for target in node.targets:
        each = target.elts if isinstance(target, ast.Tuple) else [target]
        names += [part.id for part in each if isinstance(part, ast.Name) and part.id.isupper()]
    return names


@contextmanager
def in_force(setting: Setting) -> Iterator[float]:
    """The thresholds in every module that has them; gives the tolerance."""
    before = []
    for name, value in setting:
        if name == TOLERATED:
            continue
        module, constant = name.split(".")
        today = getattr(sys.modules[f"flatguard.checks.{module}"], constant)
        for loaded, other in list(sys.modules.items()):
            if loaded.startswith("flatguard.checks.") and vars(other).get(constant) is today:
                before.append((other, constant, today))
                setattr(other, constant, value)
    try:
        yield dict(setting).get(TOLERATED, TOLERANCE)
    finally:
        for other, constant, today in before:
            setattr(other, constant, today)


@contextmanager
def deciding_checks_alone() -> Iterator[None]:
    """Leaves out the checks that decide no word, for time."""
    before = vars(verdicts)["load_checks"]
    vars(verdicts)["load_checks"] = _deciding_checks
    try:
        yield
    finally:
        vars(verdicts)["load_checks"] = before


@cache
def _deciding_checks() -> list[Check]:
    return [check for check in load_checks() if check.decisive]


@cache
def _evidence(folder: Path) -> Evidence | None:
    return kept_evidence.load(folder)


def verdicts_of(folder: Path, settings: Sequence[Setting]) -> list[Words]:
    """The words and mechanisms on a folder's evidence; what a worker process is asked for."""
    evidence = _evidence(folder)
    assert evidence is not None
    found: list[Words] = []
    for setting in settings:
        with in_force(setting) as tolerance, deciding_checks_alone():
            verdict = judge(evidence, tolerance)
        found.append((verdict.verdict, verdict.mechanism))
    return found


@dataclass(frozen=True)
class Judged:
    """A scored pair, and the verdicts on it by setting, each found once.

    Attributes:
        result: of the run.
        folder: with the evidence that it kept.
    """

    result: Result
    folder: Path
    found: dict[Setting, Words] = field(default_factory=dict)

    def verdict(self, setting: Setting) -> Words:
        """The word and the mechanism with these thresholds."""
        if setting not in self.found:
            self.found[setting] = verdicts_of(self.folder, [setting])[0]
        return self.found[setting]

    def points(self, setting: Setting) -> int:
        """One for a right verdict, and one for a right mechanism."""
        return sum(is_right(*self.verdict(setting), self.result))


def _look_up(pairs: Sequence[Judged], settings: Sequence[Setting], pool: Executor) -> None:
    """Find these verdicts in other processes."""
    jobs = []
    for pair in pairs:
        missing = [setting for setting in settings if setting not in pair.found]
        if missing:
            jobs.append((pair, missing, pool.submit(verdicts_of, pair.folder, missing)))
    for pair, missing, job in jobs:
        pair.found.update(zip(missing, job.result(), strict=True))


@dataclass(frozen=True)
class Row:
    """Recall, false alarms and right mechanisms with thresholds chosen in one way."""

    name: str
    recall: Share
    false_alarms: Share
    mechanisms: Share


@dataclass(frozen=True)
class HeldOut:
    """What leaving each kind out shows.

    Attributes:
        rows: today's thresholds, those chosen on all pairs, and those chosen without the kind.
        moved: for each kind, the thresholds that differ from today's without it.
        wrong: the pairs whose verdict or mechanism is worse without their kind than today.
        left_out: pairs without kept evidence, or whose evidence gives another verdict.
        tried: all thresholds.
    """

    rows: list[Row]
    moved: dict[str, Setting]
    wrong: list[str]
    left_out: list[str]
    tried: list[Threshold]

    def markdown(self) -> str:
        """The table, and what it rests on."""
        names = ("flatguard's thresholds", "recall", "false alarms", "right mechanisms")
        cells = [[r.name, str(r.recall), str(r.false_alarms), str(r.mechanisms)] for r in self.rows]
        lines = [
            table_of(names, cells),
            "",
            f"Thresholds: {', '.join(f'`{t.name}` {t.value:g}' for t in self.tried)}.",
            "",
            f"Kinds held out: {len(self.moved)}. Chosen without the kind:",
            "",
            *(f"- {len(kinds)} kinds: {words}." for words, kinds in self._by_setting()[:1]),
            *(f"- {', '.join(kinds)}: {words}." for words, kinds in self._by_setting()[1:]),
            "",
        ]
        if self.wrong:
            lines.append(f"Judged worse without their kind: {', '.join(self.wrong)}.")
        if self.left_out:
            lines.append(f"Without usable evidence: {', '.join(self.left_out)}.")
        return "\n".join(lines) + "\n"

    def _by_setting(self) -> list[tuple[str, list[str]]]:
        """Chosen thresholds in words, with the kinds that they are chosen without; most first."""
        found: dict[str, list[str]] = {}
        for kind, setting in self.moved.items():
            found.setdefault(_words(setting), []).append(kind)
        return sorted(found.items(), key=lambda one: -len(one[1]))


def _words(setting: Setting) -> str:
    return ", ".join(f"`{name}` {value:g}" for name, value in setting) or "today's"


def held_out(results: Sequence[Result], pool: Executor | None = None) -> HeldOut:
    """Leave each kind out in turn.

    Args:
        results: of one level.
        pool: processes that judge; None is this one.
    """
    judged, left_out = _with_evidence(results)
    tried = thresholds()
    kinds = sorted({pair.result.group for pair in judged})
    everything = chosen(judged, tried, pool)
    without = {
        kind: chosen([pair for pair in judged if pair.result.group != kind], tried, pool)
        for kind in kinds
    }
    rows = [
        _row("as released", judged, dict.fromkeys(kinds, ())),
        _row("chosen on all kinds (in sample)", judged, dict.fromkeys(kinds, everything)),
        _row("chosen on all other kinds (held out)", judged, without),
    ]
    wrong = [p.result.pair for p in judged if p.points(without[p.result.group]) < p.points(())]
    return HeldOut(rows, without, wrong, left_out, tried)


def chosen(
    pairs: Sequence[Judged], tried: Sequence[Threshold], pool: Executor | None = None
) -> Setting:
    """The thresholds with the most right verdicts and mechanisms on these pairs."""
    setting: dict[str, float] = {}
    for threshold in tried:
        changes = [
            {} if multiple == 1.0 else {threshold.name: threshold.at(multiple)}
            for multiple in MULTIPLES
        ]
        settings = [_as_setting(setting | change) for change in changes]
        if pool is not None:
            _look_up(pairs, settings, pool)
        points = [sum(pair.points(one) for pair in pairs) for one in settings]
        setting |= changes[middle_of_the_best(points)]
    return _as_setting(setting)


def middle_of_the_best(points: Sequence[int]) -> int:
    """Where the most points are; of several places the middle one, of two the outer one."""
    best = [place for place, value in enumerate(points) if value == max(points)]
    lower, upper = best[(len(best) - 1) // 2], best[len(best) // 2]
    today = len(points) // 2
    return lower if abs(lower - today) >= abs(upper - today) else upper


def _as_setting(values: Mapping[str, float]) -> Setting:
    return tuple(sorted(values.items()))


def _with_evidence(results: Sequence[Result]) -> tuple[list[Judged], list[str]]:
    """The scored pairs whose kept evidence gives the verdict that the run gave; and the others."""
    judged: list[Judged] = []
    left_out: list[str] = []
    for result in (result for result in results if result.kind != "unscored"):
        folder = kept_evidence.folder_of(result.pair, result.checks)
        evidence, pair = _evidence(folder), Judged(result, folder)
        is_same = evidence is not None and evidence.n == result.images
        if is_same and pair.verdict(()) == (result.verdict, result.mechanism):
            judged.append(pair)
        else:
            left_out.append(result.pair)
    return judged, left_out


def _row(name: str, pairs: Sequence[Judged], settings: Mapping[str, Setting]) -> Row:
    found = [(pair, *pair.verdict(settings[pair.result.group])) for pair in pairs]
    masked = [each for each in found if each[0].result.kind == "masked"]
    honest = [each for each in found if each[0].result.kind == "honest"]
    caught = [each for each in masked if each[1] in ALARMS]
    right = [each for each in caught if is_right(each[1], each[2], each[0].result)[1]]
    alarms = [each for each in honest if each[1] in ALARMS]
    return Row(
        name,
        Share(len(caught), len(masked)),
        Share(len(alarms), len(honest)),
        Share(len(right), len(caught)),
    )
