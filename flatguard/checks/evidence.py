"""Evidence: the tables that checks read. Nothing here can run the model.

Rows may come in any order and in any number of pieces, and classes may have any numbers. No check
depends on either.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import pandas as pd

from flatguard.checks.confidence_sequence import HALF_LEVEL, count_bounds
from flatguard.checks.statistics import interval
from flatguard.runs.check_evidence import load_probes, load_tables
from flatguard.runs.layout import TRAJECTORY
from flatguard.runs.run import Run

if TYPE_CHECKING:
    from torch import Tensor

RECORDED, INITIAL, STREAM = "recorded", "initial-state", "stream"
"""The probes that show the examples of the audited path again: to the model and, where answers
depend on earlier calls, to new copies of it; and those that show all examples after other calls."""

_BY_LUCK = 0.7
"""Of 21 draws that are right with probability 1/2, more than this share is wrong in 4 of 100."""

ALONE, CONFIRMED = "alone", "confirmed"
"""The probes that show examples alone in the clean batch, and the best ones in fresh draws."""

DECIDED = "decided"
"""Probes of this name, one a level, say which survivors were drawn, and whether they decide."""

CHANCE = ("repeat", "control", RECORDED)
"""The audited attack from another seed, a plain search on the target itself, and what the audited
attack passed through."""


@dataclass(frozen=True)
class ProbeEvidence:
    """What a probe measured.

    Attributes:
        facts: numbers and words about the whole probe; `ran` is False where it could not run.
        tables: rows for each sample; every table has a column `sample`.
        examples: verified adversarial examples by sample number, for a person to look at; judging
            has none of them.
    """

    facts: dict[str, Any]
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    examples: dict[int, Tensor] = field(default_factory=dict)

    @classmethod
    def missing(cls, reason: str, **facts: Any) -> ProbeEvidence:
        """The evidence of a probe that could not run."""
        return cls({"ran": False, "reason": reason, **facts})

    @property
    def ran(self) -> bool:
        """Whether it ran."""
        return bool(self.facts.get("ran", True))


def joined(parts: Sequence[ProbeEvidence]) -> ProbeEvidence:
    """The evidence of all parts as that of the whole; one part that could not run is the reason.

    Rows and examples keep their order; the facts are those of the first part.
    """
    for part in parts:
        if not part.ran:
            return part
    tables: dict[str, list[pd.DataFrame]] = {}
    examples: dict[int, Tensor] = {}
    for part in parts:
        examples |= part.examples
        for name, table in part.tables.items():
            tables.setdefault(name, []).append(table)
    whole = {name: pd.concat(found, ignore_index=True) for name, found in tables.items()}
    return ProbeEvidence(parts[0].facts, whole, examples)


@dataclass(frozen=True)
class _Trajectory:
    """A run's trajectory, a block at a time. Its readers change no table."""

    run: Run

    def __iter__(self) -> Iterator[pd.DataFrame]:
        for block in self.run.blocks:
            key = f"trajectory {block.plan.index} {block.files.get(TRAJECTORY)}"
            yield self.run.kept.get(key, partial(self.run.trajectory_of, block))


@dataclass(frozen=True)
class Drawn:
    """Survivors that were drawn at random and attacked, in place of all.

    Attributes:
        samples: their numbers.
        of: how many survivors they were drawn from: those that nothing had fooled before.
    """

    samples: frozenset[int]
    of: int


@dataclass(frozen=True)
class Evidence:
    """Everything that a verdict rests on.

    Attributes:
        num_classes: of the target.
        eps: the radius; None without a budget.
        norm: the budget's.
        attack: the audited attack's name.
        attack_args: every argument that it had.
        samples: a row per sample, as `Run.samples`.
        trajectory: a row per sample and model call, as `Run.trajectory`, in pieces that hold all
            rows of their samples. It is read anew each time: memory may not hold all of it.
        probes: by name.
        complete: whether every planned block was attacked.
        stopped: why a budget of forwards or minutes ended the run, in words; None if it did not.
        names_code: whether the target is loaded by code that the run's request names.
        from_python: `model`, `data`: what came from Python and has no name to be loaded by.
        drawn: the survivors that decided the verdict; None where all were attacked.
    """

    num_classes: int
    eps: float | None
    norm: str | None
    attack: str
    attack_args: Mapping[str, Any]
    samples: pd.DataFrame
    trajectory: Iterable[pd.DataFrame]
    probes: Mapping[str, ProbeEvidence]
    complete: bool = True
    stopped: str | None = None
    names_code: bool = False
    from_python: tuple[str, ...] = ()
    drawn: Drawn | None = None

    @classmethod
    def of(cls, run: Run) -> Evidence:
        """The evidence in a run folder."""
        return replace(cls.of_samples(run), trajectory=_Trajectory(run))

    @classmethod
    def of_samples(cls, run: Run) -> Evidence:
        """All but the trajectory, which may be large. Enough to know which attempt fools what."""
        probes = {
            name: ProbeEvidence(
                {**facts.facts, "ran": facts.ran, "sample_forwards": facts.sample_forwards},
                load_tables(run, facts),
            )
            for name, facts in load_probes(run).items()
        }
        probes = _counted(probes)
        return cls(
            num_classes=run.manifest.target.num_classes,
            eps=run.request.budget().eps,
            norm=run.request.norm,
            attack=run.request.attack,
            attack_args=run.manifest.attack_args,
            samples=run.samples,
            trajectory=(),
            probes=probes,
            complete=run.complete,
            stopped=_stopped(run, probes),
            names_code=bool(run.request.consent),
            from_python=run.manifest.from_python,
            drawn=_drawn(probes),
        )

    @property
    def n(self) -> int:
        """How many samples were evaluated."""
        return len(self.samples)

    @property
    def reported(self) -> set[int]:
        """The samples that survived the audited attack, as the run counted them."""
        return set(self.samples.loc[self.samples["robust"], "sample"].astype(int))

    @cached_property
    def given_back(self) -> set[int]:
        """Samples that were wrong by luck: most draws are right, or the clean batch is.

        A randomised target decides by the majority of fresh draws. A target whose answers depend on
        the other images of the batch decides with the example alone among clean images.
        """
        right = self._shown_again if self._confirmed is None else self._confirmed
        return set(right.loc[right["wrong"] <= 0.5, "sample"].astype(int)) - self.reported

    @property
    def worth_attacking(self) -> set[int]:
        """Other samples than the survivors that may have been wrong by luck."""
        table = self._shown_again
        return set(table.loc[table["wrong"] <= _BY_LUCK, "sample"].astype(int)) - self.reported

    @cached_property
    def standing(self) -> set[int]:
        """The samples that the checks attack: survivors, and what is given back."""
        return self.reported | self.given_back

    @property
    def _shown_again(self) -> pd.DataFrame:
        """The audited examples shown again: `sample`, and the share of wrong decisions, `wrong`."""
        parts = [
            self.probes[name].tables["survival"]
            for name in ("determinism", ALONE)
            if name in self.probes and "survival" in self.probes[name].tables
        ]
        return parts[-1] if parts else pd.DataFrame({"sample": [], "wrong": []})

    @cached_property
    def confirmed(self) -> set[int] | None:
        """Samples whose best example holds in fresh draws; None where single passes decide."""
        table = self._confirmed
        if table is None:
            return None
        return set(table.loc[table["wrong"] > 0.5, "sample"].astype(int))

    @property
    def _confirmed(self) -> pd.DataFrame | None:
        probe = self.probe(CONFIRMED)
        return None if probe is None else probe.tables.get(CONFIRMED)

    @cached_property
    def attempts(self) -> pd.DataFrame:
        """All attempts on survivors: `sample`, `attempt`, `family`, `fooled`, `forwards`."""
        tables = [
            probe.tables["attempts"] for probe in self.probes.values() if "attempts" in probe.tables
        ]
        columns = ["sample", "attempt", "family", "fooled", "forwards"]
        return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=columns)

    def fooled_by(self, *families: str) -> set[int]:
        """The survivors that an attempt of one of these families fools; of any, without names."""
        table = self.attempts
        chosen = table["fooled"].astype(bool)
        if families:
            chosen &= table["family"].isin(families)
        found = set(table.loc[chosen, "sample"].astype(int)) & self.standing
        return found if self.confirmed is None else found & self.confirmed

    def searched(self, *families: str) -> set[int]:
        """The survivors that an attempt of one of these families was made on."""
        table = self.attempts
        made_on = table.loc[table["family"].isin(families), "sample"].astype(int)
        return set(made_on) & self.standing

    def tried(self, *families: str) -> bool:
        """Whether any attempt of these families was made."""
        return bool(self.attempts["family"].isin(families).any())

    @cached_property
    def mostly_wrong(self) -> set[int]:
        """Survivors that most fresh draws classify wrong, or that are wrong in the clean batch."""
        table = self._shown_again
        found = set(table.loc[table["wrong"] > 0.5, "sample"].astype(int)) & self.reported
        return found if self.confirmed is None else found & self.confirmed

    @property
    def chance(self) -> set[int]:
        """Survivors that the attack passed by, another seed or a plain search fools: no twin."""
        return self.fooled_by(*CHANCE) | self.mostly_wrong

    @property
    def fooled(self) -> set[int]:
        """Every standing sample that an attempt fools, or that most fresh draws classify wrong."""
        if self.confirmed is not None:
            return self.confirmed & self.standing
        return self.fooled_by() | self.mostly_wrong

    @property
    def overestimate(self) -> int:
        """By how many samples the reported number exceeds the corrected one."""
        return max(0, len(self.reported) - self.corrected)

    @property
    def corrected(self) -> int:
        """How many samples withstand everything that was tried.

        Where survivors were drawn, those that were not count by the share of those that were.
        """
        return len(self.standing) - round(self.scaled(self.fooled))

    @property
    def corrected_bounds(self) -> tuple[int, int]:
        """The least and the largest number of samples that may withstand; see `count_bounds`."""
        least, most = self.bounds(self.fooled)
        return len(self.standing) - most, len(self.standing) - least

    def attacked_by_all(self, found: set[int]) -> set[int]:
        """Those of them that every attempt was made on: the drawn ones, where survivors were drawn.

        Nothing but the audited path was tried on the others, so they say nothing about what others
        would find there.
        """
        return found if self.drawn is None else found & self.drawn.samples

    def scaled(self, found: Set[int]) -> float:
        """About how many samples are like these, where only some survivors were drawn."""
        if self.drawn is None:
            return len(found)
        among = len(found & self.drawn.samples)
        return len(found) - among + among * self.drawn.of / len(self.drawn.samples)

    def bounds(self, found: Set[int]) -> tuple[int, int]:
        """Between how many samples are like these; exactly these where all were attacked."""
        if self.drawn is None:
            return len(found), len(found)
        among, drawn = len(found & self.drawn.samples), len(self.drawn.samples)
        least, most = count_bounds(self.drawn.of, drawn, among, HALF_LEVEL)
        return len(found) - among + least, len(found) - among + most

    def share_interval(self, least: int, most: int) -> tuple[float, float]:
        """The 95% interval of a share whose count of these samples is between two numbers.

        Where survivors were drawn, half of what may be missed is the draw's, and half the samples'.
        """
        if self.drawn is None:
            return interval(least, self.n)
        return interval(least, self.n, HALF_LEVEL)[0], interval(most, self.n, HALF_LEVEL)[1]

    def probe(self, prefix: str) -> ProbeEvidence | None:
        """The probe of this name, or the one that spent most: `square-2000`."""
        names = [n for n in self.probes if n == prefix or n.startswith(f"{prefix}-")]
        if not names:
            return None
        return self.probes[max(names, key=lambda n: (self.probes[n].ran, _number(n)))]

    def why_not(self, prefix: str) -> str:
        """Why a probe has no evidence."""
        probe = self.probe(prefix)
        if probe is None and self.drawn is not None and self.stopped is None:
            return "the verdict was decided before it"
        if probe is None:
            return f"budget: {self.stopped}" if self.stopped else "not part of the checks that ran"
        return str(probe.facts.get("reason", "it had no sample to try"))


def _drawn(probes: Mapping[str, ProbeEvidence]) -> Drawn | None:
    """What decided; where several levels were decided, the larger one."""
    found = [probe for name, probe in probes.items() if _level_of(name) is not None]
    decided = [probe for probe in found if probe.facts["state"] == "decided"]
    if not decided or any(probe.facts["state"] == "undecided" for probe in found):
        return None
    last = max(decided, key=lambda probe: len(probe.tables["drawn"]))
    return Drawn(frozenset(last.tables["drawn"]["sample"].astype(int)), int(last.facts["of"]))


def _level_of(name: str) -> str | None:
    """The level that a probe has the decision of."""
    return name.removeprefix(f"{DECIDED}-") if name.startswith(f"{DECIDED}-") else None


def _counted(probes: dict[str, ProbeEvidence]) -> dict[str, ProbeEvidence]:
    """All but the draws of levels that they do not decide: such a level attacked all survivors."""
    undecided = [
        f"-{_level_of(name)}-draw"
        for name, probe in probes.items()
        if _level_of(name) is not None and probe.facts["state"] == "undecided"
    ]
    return {
        name: probe for name, probe in probes.items() if not any(draw in name for draw in undecided)
    }


def _stopped(run: Run, probes: Mapping[str, ProbeEvidence]) -> str | None:
    for failure in run.failures:
        if failure.budget:
            done = sum(block.plan.stop - block.plan.start for block in run.blocks)
            planned = max(plan.stop for plan in run.manifest.blocks)
            return f"{failure.error} after {done} of {planned} samples"
    for name, probe in probes.items():
        if _level_of(name) is not None and not probe.ran:
            return "the checks were interrupted"
        if probe.facts.get("budget") and not probe.ran:
            return (
                f"{str(probe.facts['reason']).removeprefix('budget: ')} before check {name} ended"
            )
    return None


def _number(name: str) -> int:
    tail = name.rsplit("-", 1)[-1]
    return int(tail) if tail.isdigit() else 0
