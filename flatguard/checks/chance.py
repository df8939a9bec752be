"""Does an attempt find more than chance does? One judgement, shared by the checks that ask this.

Chance is what the audited attack with another seed, or a plain search on the target itself, finds.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from flatguard.checks.confidence_sequence import HALF_LEVEL
from flatguard.checks.evidence import Evidence
from flatguard.checks.finding import Finding, Status, not_run
from flatguard.checks.missing_evidence import how_to_run
from flatguard.checks.statistics import interval, mcnemar

LEVEL = 0.05
"""The significance level of the exact test."""

NOT_BY_CHANCE = "that neither another random seed of the attack nor a plain search fools"
"""What `BeyondChance.only` is, in the words of a summary."""


@dataclass(frozen=True)
class BeyondChance:
    """Survivors that some attempts fool and chance does not.

    Attributes:
        only: their numbers.
        p: of the exact McNemar test against those that only chance fools; None if not tested.
        share: of all samples.
        interval: exact 95% interval of the share.
    """

    only: frozenset[int]
    p: float | None
    share: float
    interval: tuple[float, float]

    @property
    def is_significant(self) -> bool:
        """Whether chance alone does not explain it, as far as that was tested."""
        return self.p is None or self.p < LEVEL

    def status(self, tolerance: float) -> Status:
        """Fails beyond chance and tolerance; warns beyond a tested chance alone."""
        if not self.only or not self.is_significant:
            return "pass"
        if self.share > tolerance:
            return "fail"
        return "pass" if self.p is None else "warn"

    def doubt(self, tolerance: float) -> str:
        """Why more than the tolerance does not fail; empty where it does."""
        if self.share <= tolerance or self.is_significant:
            return ""
        return f"; so few may be chance (p = {self.p:.2g})"


def beyond_chance(evidence: Evidence, *families: str) -> BeyondChance:
    """Compare what these families fool with what chance fools."""
    fooled, chance = evidence.fooled_by(*families), evidence.chance
    only, other = fooled - chance, evidence.attacked_by_all(chance - fooled)
    p = mcnemar(len(only), len(other)) if len(only) > len(other) else 1.0
    return _beyond(evidence, only, p)


def _beyond(evidence: Evidence, only: set[int], p: float | None) -> BeyondChance:
    share = evidence.scaled(only) / max(1, evidence.n)
    return BeyondChance(frozenset(only), p, share, evidence.share_interval(*evidence.bounds(only)))


def _widened(evidence: Evidence, found: BeyondChance, not_searched: int) -> tuple[float, float]:
    """The interval of the share of all samples; the survivors not searched may be like the others.

    Half of what may be missed is theirs, and half the samples'.
    """
    if not not_searched:
        return found.interval
    searched = len(evidence.standing) - not_searched
    among = interval(len(found.only), searched, HALF_LEVEL)[1]
    most = min(evidence.n, len(found.only) + math.ceil(among * not_searched))
    least = interval(len(found.only), evidence.n, HALF_LEVEL)[0]
    return least, interval(most, evidence.n, HALF_LEVEL)[1]


@dataclass(frozen=True)
class Signs:
    """Other observations of a check: what warns, in words, and numbers for reports."""

    warnings: list[str] = field(default_factory=list)
    data: dict[str, Any] = field(default_factory=dict)


def _p_value(evidence: Evidence, found: BeyondChance) -> dict[str, Any]:
    return {"p_value": found.p}


@dataclass(frozen=True)
class ChanceQuestion:
    """The parameters in which the checks differ.

    Attributes:
        check: the check's name.
        source: the publication that the idea comes from.
        families: the attempts that are compared with chance.
        probe: the probe that makes them.
        level: the cheapest level that runs the probe.
        missing: why there is no finding where no attempt was made, from the evidence.
        summary: the finding's summary.
        advice: what to do where the check does not pass; None is nothing.
        how: what to do where no attempt was made; None is to run the probe.
        data: further numbers, for reports.
        needs: the attempts without which there is no finding; `families` where none are named.
        weaker: families that count like chance; what is left is then not tested for significance.
        signs: other observations; None from it where nothing was observed.
        can_fail: whether it fails at all; a warning is the most otherwise.
        search: the search that looks at some survivors first, in words.
    """

    check: str
    source: str
    families: tuple[str, ...]
    probe: str
    level: Literal["fast", "standard"]
    missing: Callable[[Evidence], str]
    summary: Callable[[Evidence, BeyondChance], str]
    advice: Callable[[Evidence], str] | None = None
    how: Callable[[Evidence], str] | None = None
    data: Callable[[Evidence, BeyondChance], dict[str, Any]] = _p_value
    needs: tuple[str, ...] = ()
    weaker: tuple[str, ...] = ()
    signs: Callable[[Evidence], Signs | None] = lambda evidence: None
    can_fail: bool = True
    search: str = "this search"

    def judge(self, evidence: Evidence, tolerance: float) -> Finding:
        """Fails where more than the tolerance is beyond chance; see `BeyondChance.status`."""
        tried, signs = evidence.tried(*(self.needs or self.families)), self.signs(evidence)
        if not tried and signs is None:
            return self._untried(evidence, tolerance)
        signs, found = signs or Signs(), self._compared(evidence)
        not_searched = self._not_searched(evidence) if tried else 0
        status = found.status(tolerance)
        if (status == "pass" and (signs.warnings or not tried)) or (
            status == "fail" and not self.can_fail
        ):
            status = "warn"
        summary = f"{self.summary(evidence, found)}{found.doubt(tolerance)}"
        if not_searched:
            summary += (
                f"; {self.search} looked at {len(evidence.standing) - not_searched} of "
                f"{len(evidence.standing)} survivors, as the model does what its gradient predicts"
            )
        return Finding(
            check=self.check,
            status=status,
            summary="; ".join([summary, *signs.warnings]),
            value=found.share if tried else None,
            threshold=tolerance,
            interval=_widened(evidence, found, not_searched) if tried else None,
            samples=evidence.n,
            source=self.source,
            next=self.advice(evidence) if self.advice is not None and status != "pass" else None,
            data={**self.data(evidence, found), **signs.data},
        )

    def _not_searched(self, evidence: Evidence) -> int:
        """How many survivors a first look left out (`first_look.py`)."""
        truth = evidence.probe("gradient-truth")
        if evidence.drawn is not None or truth is None or not truth.facts.get("straight", False):
            return 0
        return len(evidence.standing) - len(evidence.searched(*(self.needs or self.families)))

    def _compared(self, evidence: Evidence) -> BeyondChance:
        if not self.weaker:
            return beyond_chance(evidence, *self.families)
        known = evidence.chance | evidence.fooled_by(*self.weaker)
        return _beyond(evidence, evidence.fooled_by(*self.families) - known, None)

    def _untried(self, evidence: Evidence, tolerance: float) -> Finding:
        """It passes only if no sample survived, and the probe would have run at any level."""
        if evidence.reported:
            probing = how_to_run(evidence, self.probe, self.level)
            how = probing if self.how is None else self.how(evidence)
            return not_run(self.check, self.source, self.missing(evidence), how)
        if self.level != "fast" and evidence.probe(self.probe) is None:
            why = "no sample survived, so there was nothing to attack"
            return Finding(check=self.check, status="not-run", summary=why, source=self.source)
        return Finding(
            check=self.check, status="pass", summary="no sample survived", source=self.source,
            value=0.0, threshold=tolerance, samples=evidence.n,
        )  # fmt: skip
