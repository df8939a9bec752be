"""Input gradient: is there a gradient in the input at all?"""

from __future__ import annotations

from flatguard.checks.check import Check
from flatguard.checks.evidence import Evidence
from flatguard.checks.finding import Finding
from flatguard.checks.preflight.facts import SOURCE, facts_of, not_measured

NAME = "input-gradient"


def _judge(evidence: Evidence, tolerance: float) -> Finding:
    """Warns where the margin's gradient in the input is absent, zero or not finite."""
    facts = facts_of(evidence)
    gradient = None if facts is None else facts.gradient
    if gradient is None:
        return not_measured(NAME, evidence, "gradient")
    count, wrong, advice = gradient.images, None, _NEXT
    if gradient.error is not None:
        wrong = f"the image gets no gradient: {gradient.error}"
    elif gradient.absent:
        wrong = (
            "the image gets no gradient: a step of the forward pass leaves torch's graph, which "
            "records how to compute one"
        )
    elif gradient.other_logits is not None:
        how = gradient.other_logits.described("where gradients are on")
        wrong, advice = f"the model computes otherwise for an attack: logits {how}", _NEXT_OTHER
    elif gradient.not_finite:
        wrong = f"the gradient is not finite on {gradient.not_finite} of {count} images"
    elif gradient.zero:
        wrong = (
            f"the gradient is zero everywhere on {gradient.zero} of {count} images: an attack that "
            "follows it does not move"
        )
    return Finding(
        check=NAME,
        status="pass" if wrong is None else "warn",
        summary=wrong or f"there is a gradient on all of {count} images",
        samples=count,
        source=SOURCE,
        next=None if wrong is None else advice,
    )


_NEXT = (
    "remove detach(), no_grad, argmax and rounding from the forward pass, or attack without "
    "gradients: --attack square"
)
_NEXT_OTHER = (
    "compute the same with and without gradients: no test of requires_grad or is_grad_enabled() "
    "in the forward pass"
)
_WHY = "Gradient attacks need a gradient in the input. Without one they find nothing."

CHECK = Check(NAME, SOURCE, _WHY, _judge)
