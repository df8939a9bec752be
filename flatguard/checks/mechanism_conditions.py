"""The necessary conditions of the mechanisms: what must have been measured before one is named."""

from __future__ import annotations

from flatguard.checks.evidence import Evidence
from flatguard.checks.gradient_evidence import MOST, USEFUL, GradientEvidence
from flatguard.checks.state_evidence import after_a_stream
from flatguard.geometry.measures import LOGIT_SHARPNESS

_HIDDEN = 0.5
_MATTERS = 0.01

_STRAIGHT = 0.5
"""A loss that falls by less than this share of what its slope predicts is not straight."""

_STEPS_NAMES = ("steps", "n_iter", "num_steps", "iterations")
_ITERATIVE, _SPENT = 10, 0.9
_CUTS = ("cutting", "sharp", "function", "front")


def is_hidden_by_state(evidence: Evidence) -> bool:
    """Whether the model's memory hid what is found on new copies.

    Plain attacks then find most of it, or most of it does not fool the model after other calls.
    """
    after = after_a_stream(evidence)
    if after is not None and after.wrong <= _HIDDEN * after.shown:
        return True
    same = ("repeat",) if evidence.tried("repeat") else ("control",)
    found = evidence.fooled_by("recorded", *same)
    return bool(found) and len(found) >= _HIDDEN * len(evidence.fooled)


def is_randomised(evidence: Evidence) -> bool:
    """Whether randomness matters: logits change by a hundredth, or decisions flip."""
    probe = evidence.probe("determinism")
    if probe is None or not probe.facts.get("randomised"):
        return False
    table = probe.tables["repeated"]
    return bool(table["difference"].median() > _MATTERS or table["flips"].mean() > _MATTERS)


def saturated(gradients: GradientEvidence) -> str | None:
    """Cross-entropy's gradient vanishes and a temperature brings it back, or unsaturating does.

    The margin's is then alive. On a confident network behind a bumpy stage a temperature does not
    make the gradient useful.
    """
    if gradients.dead <= MOST:
        if gradients.vanished <= MOST:
            return None
        if gradients.drops.get("tempered", 0.0) < 0.5 * max(gradients.drops.values()):
            return None
        return f"the gradient of cross-entropy vanishes at {gradients.vanished:.0%} of the points"
    if gradients.unavailable <= 0.5 * gradients.dead:
        return (
            f"there is no gradient at {gradients.dead:.0%} of the points, and at most of them "
            "the model's output does not move either"
        )
    if _unsaturated(gradients) < USEFUL or _unsaturated(gradients) < 0.5 * _repaired(gradients):
        return None
    return (
        f"there is no gradient at {gradients.dead:.0%} of the points until tanh, sigmoid, softmax "
        "and clamp keep theirs where they are flat"
    )


def by_logit_sharpness(evidence: Evidence) -> str:
    """How flat the clean images are, where logit sharpness was measured because κ was not."""
    column = f"clean_{LOGIT_SHARPNESS.column}"
    if column not in evidence.samples:
        return ""
    median = evidence.samples[column].median()
    return f", and the median {LOGIT_SHARPNESS.log_name} of clean images is {median:.1f}"


def cut(gradients: GradientEvidence) -> str | None:
    """The gradient is wrong, or misses a part that a repair brings back; not by saturation."""
    wrong = is_wrong(gradients)
    is_saturated = gradients.dead > MOST and saturated(gradients) is not None
    if is_saturated and _repaired(gradients) < 0.5 * _unsaturated(gradients):
        return None
    if wrong is not None or not (gradients.is_partly_missing and gradients.is_explained):
        return wrong
    return (
        "the model's output moves otherwise than its gradient predicts (correlation "
        f"{gradients.agreement['raw']:.2f}; {max(gradients.agreement.values()):.2f} where steps "
        "that cut the gradient are repaired)"
    )


def is_wrong(gradients: GradientEvidence) -> str | None:
    """The margin's gradient is absent, or central differences contradict it."""
    if max(gradients.unavailable, gradients.dead) <= MOST:
        return None
    return (
        f"there is no gradient at {gradients.dead:.0%} of the points, and at "
        f"{gradients.contradicted:.0%} the model's output changes otherwise than it says"
    )


def is_useless(gradients: GradientEvidence) -> bool:
    """A step along the gradient does not lower the margin, or a coarser one does it far better."""
    coarse = max(gradients.drops.get("smoothed", 0.0), gradients.drops.get("estimated", 0.0))
    return gradients.usual_drop < USEFUL or coarse > 2.0 * max(gradients.usual_drop, USEFUL)


def bumpy(evidence: Evidence, gradients: GradientEvidence) -> str | None:
    """The loss is not straight, and an iterative attack spent its radius and depends on its start.

    Other random numbers or a longer search are enough for most of what is fooled.
    """
    if gradients.linear is None or gradients.linear >= _STRAIGHT:
        return None
    if not (_is_iterative(evidence) and _spent_its_radius(evidence)):
        return None
    needed = evidence.chance | evidence.fooled_by("budget")
    if not evidence.fooled or len(needed) < _HIDDEN * len(evidence.fooled):
        return None
    return (
        f"over half the allowed change, the output moves by {max(gradients.linear, 0.0):.0%} of "
        "what its gradient predicts"
    )


def _unsaturated(gradients: GradientEvidence) -> float:
    return max(gradients.drops.get(name, 0.0) for name in ("tempered", "saturating", "logarithm"))


def _repaired(gradients: GradientEvidence) -> float:
    return max(gradients.drops.get(name, 0.0) for name in _CUTS)


def _is_iterative(evidence: Evidence) -> bool:
    steps = [evidence.attack_args.get(name) for name in _STEPS_NAMES]
    return any(isinstance(value, int) and value >= _ITERATIVE for value in steps)


def _spent_its_radius(evidence: Evidence) -> bool:
    """An attack that stops short of its radius is weak, whatever the loss is like."""
    if evidence.eps is None:
        return False
    kept = evidence.samples[evidence.samples["robust"]]["distance"]
    return bool(kept.median() >= _SPENT * evidence.eps)
