"""Why a gradient attack fails: the mechanisms whose conditions hold and whose twins explain it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict

from flatguard.checks import mechanism_conditions as conditions
from flatguard.checks.chance import LEVEL, beyond_chance
from flatguard.checks.evidence import Evidence
from flatguard.checks.gradient_evidence import MOST, GradientEvidence, gradient_evidence
from flatguard.checks.state_evidence import was_attacked_anew
from flatguard.checks.statistics import interval, mcnemar
from flatguard.checks.switch_evidence import fooled_again, hidden_by_the_gate

Mechanism = Literal[
    "state", "saturation", "unavailable-gradient", "shattered-gradient", "stochastic", "rugged-loss"
]
Confidence = Literal["high", "moderate", "low"]

FIXES: dict[Mechanism, str] = {
    "state": "attack a new copy of the model for each query batch; release a model without memory",
    "saturation": "divide the logits by a temperature (the largest is then ahead by about 2) and "
    "attack again, or attack the margin",
    "unavailable-gradient": "replace the step that cuts the gradient by the "
    "identity in the backward pass (BPDA), and attack again",
    "shattered-gradient": "average gradients over noise on the image, or attack with Square, which "
    "needs none",
    "stochastic": "average gradients of the margin over the model's random draws (EOT), and "
    "decide by the majority of its answers",
    "rugged-loss": "attack with more restarts and more, smaller steps",
}
"""What to do where a mechanism masks the number."""

GATE_FIX = "attack all branches that the model chooses between, and each together with its choice"
"""What to do in place of the mechanism's own, where a gate hides the other branches."""

SQUASHED_FIX = (
    "attack a copy in which tanh, sigmoid, softmax and clamp keep a gradient where they are flat"
)
"""What to do where a temperature and the margin find less than that."""

_GATE = "the output is chosen between branches, and the gradient misses the choice"

UNSATURATED = ("temperature", "float64", "saturating", "loss")
_SCALE_FREE = ("temperature", "float64", "loss")
REPAIRED = ("repair", "estimated", "black-box", "surrogate")
COARSE = ("smoothed", "estimated", "repair", "black-box")
PLAIN = ("temperature", "float64", "loss", "budget")
"""Attempts along the target's own gradient."""

EXPLAINS = 0.5
"""A mechanism explains a discrepancy if its attempts find this share of it."""

NEEDED = 6
"""Fewer samples are within chance at 5%, even where chance fools none of them."""

_DIFFER = 0.05
_NO_CHANCE = ("state", "stochastic", "rugged-loss")
"""Here a plain search with other random numbers, or averaged over draws, is the evidence."""


class Explanation(BaseModel):
    """A mechanism whose necessary condition was measured.

    Attributes:
        mechanism: its name.
        condition: what was measured, without which it is not named.
        found: how many of `missed` the attempts that belong to it fool.
        missed: how many samples chance does not fool; every fooled one where chance is no measure.
        interval: exact 95% interval of their share.
        confidence: `high` where that interval lies above one half, `moderate` where the share does
            and chance does not explain it, `low` where only the condition speaks for it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    mechanism: Mechanism
    condition: str
    found: int
    missed: int
    interval: tuple[float, float]
    confidence: Confidence

    @property
    def sentence(self) -> str:
        """What was measured, and what it explains."""
        found = f"attacks made for it fool {self.found} of {self.missed} samples"
        found += " that plain searches miss" if self.mechanism not in _NO_CHANCE else ""
        name = self.mechanism.capitalize()
        return f"{name}, with {self.confidence} confidence: {self.condition}; {found}."


def explanations(evidence: Evidence) -> tuple[Explanation, ...]:
    """The mechanisms that explain what the audited attack missed, the simplest first.

    Each needs its condition, and attempts that find most of what chance does not:

    0. `state`: answers depend on earlier calls, and that hid most of what new copies get wrong.
    1. `stochastic`: the target is randomised, so single gradients and single passes mislead.
    2. `saturation`: the gradient vanishes; temperature, float64 or unsaturated twins are fooled.
    3. `unavailable-gradient`: it is absent, contradicted or partly missing, and unsaturating does
       not bring it back; a repaired twin is fooled.
    4. `shattered-gradient`: it is true but too local; smoothed, estimated or coarser gradients
       find what it does not. So it is where the output is chosen between branches, and the audited
       attack finds most of it where the choice is frozen, or it lies in another branch.
    5. `rugged-loss`: an iterative attack on a bumpy loss depends on its start or its length.

    A later one is named beside the first where it finds as much. Where none finds most, a gradient
    that is wrong is named by its condition alone: an attack along it is not merely weak. An attack
    that fails on straight, true gradients is.
    """
    everything = frozenset(evidence.fooled)
    if was_attacked_anew(evidence) and conditions.is_hidden_by_state(evidence):
        known = "answers depend on earlier calls, and that hides what new copies get wrong"
        return (_explained("state", known, everything, everything),)
    gradients = gradient_evidence(evidence)
    is_dead = gradients is not None and gradients.dead > MOST
    if conditions.is_randomised(evidence) and not is_dead:
        known = "logits change by a hundredth, or decisions flip, from draw to draw"
        return (_explained("stochastic", known, everything, everything),)
    if gradients is None:
        return ()
    rules = _rules(evidence, gradients)
    found = [rule for rule in rules if rule.explains]
    if found:
        equal = [rule for rule in found if rule.finds_as_much_as(found[0])]
        return tuple(
            _explained(rule.mechanism, rule.condition, rule.found, rule.missed) for rule in equal
        )
    return _by_condition_alone(evidence, gradients, rules)


def fix_of(found: Explanation, evidence: Evidence) -> str:
    """What to do about a mechanism, by what was tried for it and found most."""
    if found.condition == _GATE:
        return GATE_FIX
    squashed, scaled = evidence.fooled_by("saturating"), evidence.fooled_by(*_SCALE_FREE)
    if found.mechanism == "saturation" and len(squashed) > len(scaled):
        return SQUASHED_FIX
    return FIXES[found.mechanism]


@dataclass(frozen=True)
class _Rule:
    """A mechanism whose condition holds.

    Attributes:
        found: the samples that its attempts fool and chance does not.
        missed: all that chance does not fool.
        is_significant: whether chance alone does not explain what its attempts find.
    """

    mechanism: Mechanism
    condition: str
    found: frozenset[int]
    missed: frozenset[int]
    is_significant: bool

    @property
    def finds_most(self) -> bool:
        """Whether its attempts find most of what chance does not."""
        return bool(self.missed) and len(self.found) >= EXPLAINS * len(self.missed)

    @property
    def explains(self) -> bool:
        """The same, beyond chance."""
        return self.is_significant and self.finds_most

    def finds_as_much_as(self, other: _Rule) -> bool:
        """Whether no exact test tells apart what the two find."""
        only, missing = len(self.found - other.found), len(other.found - self.found)
        return mcnemar(only, missing) >= _DIFFER


def _rules(evidence: Evidence, gradients: GradientEvidence) -> list[_Rule]:
    """Those whose condition holds, the simplest first."""
    found = []
    if (known := conditions.saturated(gradients)) is not None:
        dead = ("repair",) if gradients.dead > MOST else ()
        known += conditions.by_logit_sharpness(evidence)
        found.append(_rule(evidence, "saturation", known, *UNSATURATED, *dead))
    if (known := conditions.cut(gradients)) is not None:
        by_repair = _rule(evidence, "unavailable-gradient", known, *REPAIRED)
        other = _rule(evidence, "unavailable-gradient", known, "saturating", "smoothed")
        found.append(by_repair if by_repair.explains or not other.explains else other)
    weaker = _rule(evidence, "shattered-gradient", "", *PLAIN)
    is_local = conditions.is_useless(gradients) or not weaker.explains
    gate = _gate(evidence)
    if gate.explains:
        found.append(gate)
    elif conditions.is_wrong(gradients) is None and is_local:
        known = "the gradient is true, but only for tiny changes: a coarser one leads further"
        found.append(_rule(evidence, "shattered-gradient", known, *COARSE))
    known = conditions.bumpy(evidence, gradients)
    if known is not None and conditions.is_wrong(gradients) is None:
        # Other random numbers or a longer search are enough: here chance itself is the evidence.
        needed, fooled = evidence.chance | evidence.fooled_by("budget", "targeted"), evidence.fooled
        found.append(_Rule("rugged-loss", known, frozenset(needed), frozenset(fooled), True))
    return found


def _gate(evidence: Evidence) -> _Rule:
    """The gradient of the chosen branch is true, and it misses that the gate turns."""
    hidden, again = hidden_by_the_gate(evidence) & evidence.fooled, fooled_again(evidence)
    only, other = len(hidden - again), len(again - hidden)
    return _Rule(
        "shattered-gradient", _GATE, frozenset(hidden - again), frozenset(evidence.fooled - again),
        only > other and mcnemar(only, other) < LEVEL,
    )  # fmt: skip


def _rule(evidence: Evidence, mechanism: Mechanism, condition: str, *families: str) -> _Rule:
    found = beyond_chance(evidence, *families)
    stronger = evidence.fooled_by("targeted")  # what no attempt of the twins' strength fools
    missed = frozenset(evidence.fooled - evidence.chance - stronger)
    return _Rule(mechanism, condition, found.only, missed, found.is_significant)


def _by_condition_alone(
    evidence: Evidence, gradients: GradientEvidence, rules: list[_Rule]
) -> tuple[Explanation, ...]:
    """A wrong gradient, where too few samples or an attack that is lucky hide what it explains."""
    most = EXPLAINS * len(evidence.fooled)  # a plain search that finds them shows a weak attack
    for rule in rules:
        if rule.mechanism == "saturation" and len(rule.found) >= max(most, 1):
            return (_explained(rule.mechanism, rule.condition, rule.found, rule.missed, "low"),)
        if rule.mechanism != "unavailable-gradient":
            continue
        further = evidence.fooled_by(*REPAIRED) - evidence.fooled_by(*PLAIN) - evidence.chance
        if conditions.is_wrong(gradients) is not None or len(further) >= max(most, 1):
            return (_explained(rule.mechanism, rule.condition, rule.found, rule.missed, "low"),)
    return ()


def _explained(
    mechanism: Mechanism,
    condition: str,
    found: frozenset[int],
    missed: frozenset[int],
    confidence: Confidence | None = None,
) -> Explanation:
    share = interval(len(found & missed), len(missed))
    return Explanation(
        mechanism=mechanism,
        condition=condition,
        found=len(found & missed),
        missed=len(missed),
        interval=share,
        confidence=confidence or ("high" if share[0] >= EXPLAINS else "moderate"),
    )
