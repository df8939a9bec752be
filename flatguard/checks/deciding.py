"""Stops the checks of a masked model early: some survivors, drawn at random, may decide.

Survivors are drawn in an order that the seed fixes. Each draw goes through the level's cheap probes
(those of the twins, and those that tell chance), and after each of them the evidence so far is
judged. It decides once

- the least overestimate that the confidence sequence has is above the tolerance,
- the verdict is `masked`, by a mechanism that chance does not explain, and
- the e-value of what is fooled beyond chance is at least `EVIDENCE`.

All three may be read at any time (`confidence_sequence.py`). Otherwise the next draw doubles the
samples, while it leaves half of them and the e-value is at least `_HOPE`. Where no draw decides,
the level attacks all survivors as without draws, and the draws do not count: the verdict is the
same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd

from flatguard.checks.confidence_sequence import EVIDENCE, sign_evidence
from flatguard.checks.context import CheckContext, Draw
from flatguard.checks.evidence import CHANCE, DECIDED, Drawn, Evidence
from flatguard.checks.parts import GatheredPart
from flatguard.checks.schedule import Schedule, Step
from flatguard.checks.verdict import judge
from flatguard.request import Checks
from flatguard.runs.check_evidence import ProbeFacts, add_probe, load_probes, load_tables

FIRST = 16
"""Samples of the first draw. Fewer cannot name a mechanism with confidence."""

_BEYOND_CHANCE = ("saturation", "unavailable-gradient", "shattered-gradient")
_LOOKS_FIRST = "gradient-truth"
"""The first draw does; the others read its evidence."""

_CHEAP = 50
"""Probes of an earlier order are cheap; Square, longer and targeted searches are not."""

_HOPE = 2.0
"""Three samples beyond chance, and none that only chance fools."""

State = Literal["drawing", "undecided", "decided"]
"""Draws are made; all survivors are attacked after them; they decide."""


@dataclass
class Deciding:
    """The draws of one level.

    Attributes:
        context: of the checks.
        checks: the level.
        steps: of the level, in the order of the plan.
        store: publishes a step's evidence.
    """

    context: CheckContext
    checks: Checks
    steps: Sequence[Step]
    store: Callable[[Step, GatheredPart], None]

    @property
    def name(self) -> str:
        """The name that the decision is stored under."""
        return f"{DECIDED}-{self.checks}"

    def decides(self) -> bool:
        """Draw until it is decided; False where all survivors have to be attacked.

        An interrupted process goes on where it was: what was judged before is not judged again,
        with evidence that came later.
        """
        known = load_probes(self.context.run).get(self.name)
        state: State = "drawing"
        if known is None:
            order = self._order()
            self._keep(Drawn(frozenset(), len(order)), state, order)
        else:
            order, state = self._stored_order(known), known.facts["state"]
        if state == "drawing":
            seen, state = self._drawn(order)
            self._keep(seen, state, order)
        return state == "decided"

    def _order(self) -> np.ndarray:
        fooled = sorted(Evidence.of_samples(self.context.run).fooled)
        generator = np.random.default_rng(self.context.seed("order of survivors"))
        order: np.ndarray = generator.permutation(np.setdiff1d(self.context.survivors, fooled))
        return order

    def _stored_order(self, known: ProbeFacts) -> np.ndarray:
        order: np.ndarray = load_tables(self.context.run, known)["order"]["sample"].to_numpy()
        return order

    def _drawn(self, order: np.ndarray) -> tuple[Drawn, State]:
        """Draw and judge; returns what was drawn, and whether it decides."""
        stored = {name for name, facts in load_probes(self.context.run).items() if facts.ran}
        looks = list(self._looks(order))
        later = max((i for i, look in enumerate(looks) if look.step.name in stored), default=-1)
        seen = Drawn(frozenset(), len(order))
        for number, look in enumerate(looks):
            seen = Drawn(seen.samples | set(look.draw.samples.tolist()), len(order))
            if number > later:
                self._gather(look)
            if number < later:
                continue
            if look.step.probe.name != _LOOKS_FIRST and self._is_decided(seen):
                return seen, "decided"
            if look.is_last and self._beyond_chance(self._evidence(seen)) < _HOPE:
                break
        return seen, "undecided"

    def _looks(self, order: np.ndarray) -> Iterator[_Look]:
        """The probes of one draw after the other, while a draw leaves half of the survivors."""
        steps = [step for step in self.steps if _is_drawn(step)]
        begin, size, number, first = 0, FIRST, 1, f"{self.checks}-draw1"
        while begin + size <= len(order) / 2:
            samples = np.sort(order[begin : begin + size])
            draw = Draw(f"{self.checks}-draw{number}", samples, first)
            for step in steps if number == 1 else steps[1:]:
                named = replace(step, name=draw.name_of(step.name))
                yield _Look(draw, named, is_last=step is steps[-1])
            begin, size, number = begin + size, begin + size, number + 1

    def _gather(self, look: _Look) -> None:
        self.context.draw = look.draw
        try:
            Schedule(self.context, [look.step], None, self.store).run()
        finally:
            self.context.draw = None

    def _evidence(self, seen: Drawn) -> Evidence:
        return replace(Evidence.of(self.context.run), drawn=seen)

    def _is_decided(self, seen: Drawn) -> bool:
        evidence = self._evidence(seen)
        if self._beyond_chance(evidence) < EVIDENCE:
            return False
        verdict = judge(evidence, self.context.run.request.tolerance)
        if verdict.verdict != "masked":
            return False
        first = verdict.explanations[0]
        if first.mechanism not in _BEYOND_CHANCE or first.confidence == "low":
            return False
        assert verdict.decided_by is not None
        self.context.progress.log(f"masked: {verdict.decided_by.sentence}")
        return True

    @staticmethod
    def _beyond_chance(evidence: Evidence) -> float:
        """The e-value of what only attempts beyond chance fool, against what only chance does."""
        others = evidence.fooled_by(*set(evidence.attempts["family"]) - set(CHANCE))
        first, second = evidence.fooled - evidence.chance, evidence.chance - others
        return sign_evidence(len(first), len(second))

    def _keep(self, seen: Drawn, state: State, order: np.ndarray) -> None:
        """Store how far it is. Only what is not final may be replaced."""
        is_final = state != "drawing"
        waits = {} if is_final else {"reason": "survivors are drawn"}
        facts = ProbeFacts(
            name=self.name,
            checks=self.checks,
            ran=is_final,
            facts={"state": state, "of": seen.of, **waits},
            sample_forwards=0,
            seed=self.context.seed("order of survivors"),
        )
        drawn = np.array(sorted(seen.samples), np.int64)
        tables = {
            "drawn": pd.DataFrame({"sample": drawn}),
            "order": pd.DataFrame({"sample": order.astype(np.int64)}),
        }
        add_probe(self.context.run, facts, tables, {}, 0.0)


def _is_drawn(step: Step) -> bool:
    looks = step.probe.name == _LOOKS_FIRST
    return step.probe.order < _CHEAP and (step.probe.per_survivor or looks)


@dataclass(frozen=True)
class _Look:
    """A probe of a draw; `is_last` of its draw."""

    draw: Draw
    step: Step
    is_last: bool


def why_not_drawn(context: CheckContext) -> str | None:
    """Why draws cannot decide about this target; None where they can."""
    decisions = [
        facts for name, facts in load_probes(context.run).items() if name.startswith(f"{DECIDED}-")
    ]
    if any(facts.facts["state"] == "undecided" for facts in decisions):
        return "draws did not decide before"
    if context.randomised:
        return "the target is randomised"
    if context.remembers:
        return "answers depend on earlier calls"
    if context.decides_alone:
        return "answers depend on the batch"
    return None
