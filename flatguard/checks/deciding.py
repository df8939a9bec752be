"""Stops the checks of a masked model early: some survivors, drawn at random, may decide.

Survivors are drawn in an order that the seed fixes. Each draw goes through the level's cheap probes
(those of the twins, and those that tell chance) and, where these give no hope and gradients are not
straight, through its Square. After each of them the evidence so far is judged. It decides once

- the least overestimate that the confidence sequence has is above the tolerance,
- the verdict is `masked`, by a mechanism that chance does not explain, and
- the e-value of what is fooled beyond chance is at least `EVIDENCE`.

All three may be read at any time (`confidence_sequence.py`). Where the mechanism is not saturation,
the longer search on the same samples has to leave it so. Otherwise the next draw doubles the
samples, while it leaves half of them and the e-value is at least `_HOPE`. Where no draw decides,
the level attacks all survivors as without draws, and the draws do not count: the verdict is the
same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import pandas as pd

from flatguard.checks.confidence_sequence import EVIDENCE, sign_evidence
from flatguard.checks.context import CheckContext, Draw
from flatguard.checks.evidence import CHANCE, DECIDED, Drawn, Evidence
from flatguard.checks.parts import GatheredPart
from flatguard.checks.schedule import Schedule, Step
from flatguard.checks.verdict import Verdict, judge
from flatguard.request import Checks
from flatguard.runs.check_evidence import ProbeFacts, add_probe, load_probes, load_tables

FIRST = 12
"""Samples of the first draw. Seven that are fooled beyond chance, and none by chance alone, are
evidence enough."""

_BEYOND_CHANCE = ("saturation", "unavailable-gradient", "shattered-gradient")
_LOOKS_FIRST, _LOOKED_AT = "gradient-truth", 6
"""The first draw begins with it, on so many samples; the others read its evidence."""

_CHEAP = 50
"""Probes of an earlier order are cheap; longer and targeted searches are not."""

_LAST = "square"
"""What a draw without hope ends with: it finds what no gradient of model or twin leads to."""

_LONGER = "longer"
"""Where it finds as much, the attack was weak and no gradient is masked. What saturates needs no
such search: it would end where it began, along a gradient that vanishes."""

_HOPE = 3.0
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
    _reached: set[str] = field(default_factory=set, init=False)

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
        """Draw and judge; returns what was drawn, and whether it decides.

        What is stored already is not gathered again, and is read where it was gathered.
        """
        seen, draws = Drawn(frozenset(), len(order)), list[Draw]()
        self._reached.clear()
        for draw in self._draws(order):
            draws.append(draw)
            seen = Drawn(seen.samples | set(draw.samples.tolist()), len(order))
            for step in self._steps_of(draw, seen):
                self._reach(draw, step)
                state = "drawing" if step.probe.name == _LOOKS_FIRST else self._judged(seen, draws)
                if state != "drawing":
                    return seen, state
            if not self._has_hope(seen):
                break
        return seen, "undecided"

    def _draws(self, order: np.ndarray) -> Iterator[Draw]:
        """One draw after the other, while a draw leaves half of the survivors."""
        begin, size, number = 0, FIRST, 1
        while begin + size <= len(order) / 2:
            samples = np.sort(order[begin : begin + size])
            yield Draw(f"{self.checks}-draw{number}", samples, f"{self.checks}-draw1")
            begin, size, number = begin + size, begin + size, number + 1

    def _steps_of(self, draw: Draw, seen: Drawn) -> Iterator[Step]:
        """What a draw goes through, until it decides."""
        if draw.name == draw.first:
            yield from (replace(s, amount=_LOOKED_AT) for s in self._named(_LOOKS_FIRST))
        yield from (s for s in self.steps if s.probe.per_survivor and s.probe.order < _CHEAP)
        truth = load_probes(self.context.run).get(f"{_LOOKS_FIRST}-{draw.first}")
        is_straight = truth is not None and truth.facts.get("straight", False)
        if not is_straight and not self._has_hope(seen):
            yield from self._named(_LAST)

    def _named(self, name: str) -> list[Step]:
        return [step for step in self.steps if step.probe.name == name]

    def _reach(self, draw: Draw, step: Step) -> None:
        """Gather a step on the samples of a draw, if it is not stored."""
        name = draw.name_of(step.name)
        self._reached.add(name)
        known = load_probes(self.context.run).get(name)
        if known is not None and known.ran:
            return
        self.context.draw = draw
        try:
            Schedule(self.context, [replace(step, name=name)], None, self.store).run()
        finally:
            self.context.draw = None

    def _evidence(self, seen: Drawn) -> Evidence:
        """What was gathered until now; what an interrupted process gathered later is left out."""
        found = Evidence.of(self.context.run)
        part = f"-{self.checks}-draw"
        probes = {n: p for n, p in found.probes.items() if part not in n or n in self._reached}
        return replace(found, probes=probes, drawn=seen)

    def _judged(self, seen: Drawn, draws: Sequence[Draw]) -> State:
        """Masked beyond doubt, open, or in doubt because a longer plain search says otherwise."""
        verdict = self._masked(seen)
        if verdict is not None and verdict.mechanism != "saturation":
            for draw in draws:
                for step in self._named(_LONGER):
                    self._reach(draw, step)
            verdict = self._masked(seen)
            if verdict is None:
                return "undecided"
        if verdict is None:
            return "drawing"
        assert verdict.decided_by is not None
        self.context.progress.log(f"masked: {verdict.decided_by.sentence}")
        return "decided"

    def _masked(self, seen: Drawn) -> Verdict | None:
        """The verdict, if it is masked by a mechanism beyond chance; None otherwise."""
        evidence = self._evidence(seen)
        if self._beyond_chance(evidence) < EVIDENCE:
            return None
        verdict = judge(evidence, self.context.run.request.tolerance)
        if verdict.verdict != "masked":
            return None
        first = verdict.explanations[0]
        is_sure = first.mechanism in _BEYOND_CHANCE and first.confidence != "low"
        return verdict if is_sure else None

    def _has_hope(self, seen: Drawn) -> bool:
        return self._beyond_chance(self._evidence(seen)) >= _HOPE

    @staticmethod
    def _beyond_chance(evidence: Evidence) -> float:
        """The e-value of what only attempts beyond chance fool, against what only chance does."""
        others = evidence.fooled_by(*set(evidence.attempts["family"]) - set(CHANCE))
        first = evidence.fooled - evidence.chance
        second = evidence.attacked_by_all(evidence.chance - others)
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
