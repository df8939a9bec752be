"""Why a gradient attack fails: the mechanism whose repaired twins explain what it misses."""

from __future__ import annotations

from typing import Literal

from flatguard.checks.chance import beyond_chance
from flatguard.checks.evidence import Evidence
from flatguard.checks.gradient_evidence import MOST, USEFUL, GradientEvidence, gradient_evidence
from flatguard.checks.state_evidence import after_a_stream, was_attacked_anew

Mechanism = Literal[
    "state", "saturation", "unavailable-gradient", "shattered-gradient", "stochastic", "rugged-loss"
]

FIXES: dict[Mechanism, str] = {
    "state": "attack a new copy of the model for each query batch; release a model without memory",
    "saturation": "divide the logits by a temperature (a gap of about 2), or attack the margin",
    "unavailable-gradient": "attack through the stage with a straight-through gradient (BPDA)",
    "shattered-gradient": "average gradients over noise, or attack with Square",
    "stochastic": "average gradients over draws (EOT), and classify by majority of several draws",
    "rugged-loss": "attack with more restarts and more, smaller steps",
}
"""What to do where a mechanism masks the number."""

_EXPLAINS = 0.5
"""A mechanism explains a discrepancy if its twins find this share of it."""

_MATTERS = 0.01

_STRAIGHT = 0.5
"""A loss that falls by less than this share of what its slope predicts is not straight."""

_STEPS_NAMES = ("steps", "n_iter", "num_steps", "iterations")
_ITERATIVE, _SPENT = 10, 0.9


def mechanism_of(evidence: Evidence) -> Mechanism | None:
    """The simplest mechanism whose twins find most of what chance does not; None if none does.

    The order is:

    0. `state`: answers depend on earlier calls, and that hid most of what new copies get wrong.
    1. `stochastic`: the target is randomised, so single gradients and single passes mislead.
    2. `saturation`: the gradient vanishes; temperature, float64 or unsaturated twins are fooled.
    3. `unavailable-gradient`: it is absent or contradicted; a repaired twin is fooled.
    4. `shattered-gradient`: it is true but too local; smoothed, estimated or coarser gradients
       find what it does not.
    5. `rugged-loss`: an iterative attack on a bumpy loss depends on its start or its length.

    An attack that fails on straight, true gradients is merely weak.
    """
    if _is_explained_by_state(evidence):
        return "state"
    gradients = gradient_evidence(evidence)
    missed = evidence.fooled - evidence.chance
    if _is_randomised(evidence) and (gradients is None or gradients.dead <= MOST):
        return "stochastic"
    if gradients is None:
        return None
    unsaturated = ("temperature", "float64", "saturating", "loss")
    if _vanished(gradients) and _explains(evidence, missed, *unsaturated):
        return "saturation"
    revived = gradients.dead > MOST and _revived_by_unsaturating(gradients)
    if revived and _explains(evidence, missed, *unsaturated, "repair"):
        return "saturation"
    if _is_cut(gradients):
        repaired = _explains(evidence, missed, "repair", "estimated", "black-box", "surrogate")
        if repaired or _explains(evidence, missed, "saturating", "smoothed"):
            return "unavailable-gradient"
    is_useless = gradients.usual_drop < USEFUL or _much_better(gradients)
    local = ("temperature", "float64", "loss", "budget")
    is_local = is_useless or not _explains(evidence, missed, *local)
    if is_local and _explains(evidence, missed, "smoothed", "estimated", "repair", "black-box"):
        return "shattered-gradient"
    is_bumpy = gradients.linear is not None and gradients.linear < _STRAIGHT
    is_spent = _is_iterative(evidence) and _spent_its_radius(evidence)
    if is_bumpy and is_spent and _depends_on_the_start(evidence):
        return "rugged-loss"
    return None


def _is_explained_by_state(evidence: Evidence) -> bool:
    """Whether the model was attacked without its memory, and that memory hid what is found.

    Plain attacks then find most of it, or most of it does not fool the model after other calls.
    """
    if not was_attacked_anew(evidence):
        return False
    after = after_a_stream(evidence)
    if after is not None and after.wrong <= _EXPLAINS * after.shown:
        return True
    same = ("repeat",) if evidence.tried("repeat") else ("control",)
    found = evidence.fooled_by("recorded", *same)
    return bool(found) and len(found) >= _EXPLAINS * len(evidence.fooled)


def _is_randomised(evidence: Evidence) -> bool:
    """Whether randomness matters: logits change by a hundredth, or decisions flip."""
    probe = evidence.probe("determinism")
    if probe is None or not probe.facts.get("randomised"):
        return False
    table = probe.tables["repeated"]
    return bool(table["difference"].median() > _MATTERS or table["flips"].mean() > _MATTERS)


def _is_cut(gradients: GradientEvidence) -> bool:
    found_again = gradients.is_partly_missing and gradients.is_explained
    return gradients.unavailable > MOST or gradients.dead > MOST or found_again


def _vanished(gradients: GradientEvidence) -> bool:
    """Cross-entropy's gradient vanishes, the margin's does not, and a temperature makes it useful.

    On a confident network behind a bumpy stage a temperature does not make it useful.
    """
    if gradients.vanished <= MOST or gradients.dead > MOST:
        return False
    return gradients.drops.get("tempered", 0.0) >= 0.5 * max(gradients.drops.values())


def _revived_by_unsaturating(gradients: GradientEvidence) -> bool:
    """Unsaturating restores a dead gradient, and repairing cut stages does not do more."""
    revived = max(gradients.drops.get("tempered", 0.0), gradients.drops.get("saturating", 0.0))
    cut = max(gradients.drops.get(name, 0.0) for name in ("cutting", "function", "front"))
    return revived >= USEFUL and revived >= 0.5 * cut


def _much_better(gradients: GradientEvidence) -> bool:
    coarse = max(gradients.drops.get("smoothed", 0.0), gradients.drops.get("estimated", 0.0))
    return coarse > 2.0 * max(gradients.usual_drop, USEFUL)


def _explains(evidence: Evidence, missed: set[int], *families: str) -> bool:
    found = beyond_chance(evidence, *families)
    return bool(missed) and found.is_significant and len(found.only) >= _EXPLAINS * len(missed)


def _is_iterative(evidence: Evidence) -> bool:
    steps = [evidence.attack_args.get(name) for name in _STEPS_NAMES]
    return any(isinstance(value, int) and value >= _ITERATIVE for value in steps)


def _spent_its_radius(evidence: Evidence) -> bool:
    """An attack that stops short of its radius is weak, whatever the loss is like."""
    if evidence.eps is None:
        return False
    kept = evidence.samples[evidence.samples["robust"]]["distance"]
    return bool(kept.median() >= _SPENT * evidence.eps)


def _depends_on_the_start(evidence: Evidence) -> bool:
    """Other random numbers or a longer search are enough for most of what is fooled."""
    needed = evidence.chance | evidence.fooled_by("budget")
    return bool(evidence.fooled) and len(needed) >= _EXPLAINS * len(evidence.fooled)
