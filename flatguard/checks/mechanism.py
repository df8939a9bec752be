"""Why a gradient attack failed: which mended twin explains what it missed."""

from __future__ import annotations

from typing import Literal

from flatguard.checks.chance import beyond_chance
from flatguard.checks.evidence import Evidence
from flatguard.checks.gradient_truth import MOST, USEFUL, Truth, truth_of

Mechanism = Literal[
    "saturation", "unavailable-gradient", "shattered-gradient", "stochastic", "rugged-loss"
]

EXPLAINS = 0.5
"""A mechanism explains a discrepancy if its twins find this share of it."""

MATTERS = 0.01

STRAIGHT = 0.5
"""A loss that keeps less of its slope's promise over half a radius is not straight."""

STEPS_NAMES = ("steps", "n_iter", "num_steps", "iterations")
ITERATIVE, SPENT = 10, 0.9


def mechanism_of(evidence: Evidence) -> Mechanism | None:
    """The simplest mechanism whose twins find most of what chance does not; None if none does.

    In order: a randomised target, whose single gradients and single answers mislead; a saturated
    one, whose gradient vanished and whose temperature, float64 or unsaturated twin falls; one
    whose gradient is absent or contradicted and whose repaired twin falls; one whose gradient is
    true and too local, so that smoothed, estimated or coarser gradients find what it does not; a
    bumpy one, on which an iterative attack depends on its start or its length. An attack that
    loses on straight, true gradients is merely weak.
    """
    truth = truth_of(evidence)
    missed = evidence.fooled - evidence.chance
    if _is_randomised(evidence) and (truth is None or truth.dead <= MOST):
        return "stochastic"
    if truth is None:
        return None
    unsaturated = ("temperature", "float64", "saturating", "loss")
    if _vanished(truth) and _explains(evidence, missed, *unsaturated):
        return "saturation"
    revived = truth.dead > MOST and _revived_by_unsaturating(truth)
    if revived and _explains(evidence, missed, *unsaturated, "repair"):
        return "saturation"
    if _is_cut(truth):
        repaired = _explains(evidence, missed, "repair", "estimated", "black-box", "surrogate")
        if repaired or _explains(evidence, missed, "saturating", "smoothed"):
            return "unavailable-gradient"
    leads_nowhere = truth.leads < USEFUL or _much_better(truth)
    local = ("temperature", "float64", "loss", "budget")
    is_local = leads_nowhere or not _explains(evidence, missed, *local)
    if is_local and _explains(evidence, missed, "smoothed", "estimated", "repair", "black-box"):
        return "shattered-gradient"
    is_bumpy = truth.linear is not None and truth.linear < STRAIGHT
    is_spent = _is_iterative(evidence) and _spent_its_radius(evidence)
    if is_bumpy and is_spent and _depends_on_the_start(evidence):
        return "rugged-loss"
    return None


def _is_randomised(evidence: Evidence) -> bool:
    """Randomised so much that it matters: logits move by a hundredth, or decisions flip."""
    probe = evidence.probe("determinism")
    if probe is None or not probe.facts.get("randomised"):
        return False
    table = probe.tables["repeated"]
    return bool(table["difference"].median() > MATTERS or table["flips"].mean() > MATTERS)


def _is_cut(truth: Truth) -> bool:
    return truth.unavailable > MOST or truth.dead > MOST


def _vanished(truth: Truth) -> bool:
    """Cross-entropy's gradient has gone, the margin's has not, and over a temperature it leads.

    A confident network behind a bumpy stage has vanished gradients too; there it leads nowhere.
    """
    if truth.vanished <= MOST or truth.dead > MOST:
        return False
    return truth.drops.get("tempered", 0.0) >= 0.5 * max(truth.drops.values())


def _revived_by_unsaturating(truth: Truth) -> bool:
    """Unsaturating brings a dead gradient back, and mending cut stages does not do more."""
    revived = max(truth.drops.get("tempered", 0.0), truth.drops.get("saturating", 0.0))
    cut = max(truth.drops.get(name, 0.0) for name in ("cutting", "function", "front"))
    return revived >= USEFUL and revived >= 0.5 * cut


def _much_better(truth: Truth) -> bool:
    mended = max(truth.drops.get("smoothed", 0.0), truth.drops.get("estimated", 0.0))
    return mended > 2.0 * max(truth.leads, USEFUL)


def _explains(evidence: Evidence, missed: set[int], *families: str) -> bool:
    found = beyond_chance(evidence, *families)
    return bool(missed) and found.is_significant and len(found.only) >= EXPLAINS * len(missed)


def _is_iterative(evidence: Evidence) -> bool:
    steps = [evidence.attack_args.get(name) for name in STEPS_NAMES]
    return any(isinstance(value, int) and value >= ITERATIVE for value in steps)


def _spent_its_radius(evidence: Evidence) -> bool:
    """An attack that stops short of its radius is weak, whatever the loss looks like."""
    if evidence.eps is None:
        return False
    kept = evidence.samples[evidence.samples["robust"]]["distance"]
    return bool(kept.median() >= SPENT * evidence.eps)


def _depends_on_the_start(evidence: Evidence) -> bool:
    """Most of what fell needed only other random numbers, or a longer search."""
    needed = evidence.chance | evidence.fooled_by("budget")
    return bool(evidence.fooled) and len(needed) >= EXPLAINS * len(evidence.fooled)
