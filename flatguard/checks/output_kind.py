"""Output: does the model return logits, or what was made of them, and in which precision?"""

from __future__ import annotations

from flatguard.checks.check import Check
from flatguard.checks.evidence import Evidence
from flatguard.checks.finding import Finding
from flatguard.checks.preflight.facts import (
    SOURCE,
    Output,
    OutputKind,
    Precision,
    facts_of,
    not_measured,
)

NAME = "output"

_WRONG: dict[OutputKind, str] = {
    "probabilities": "the output is probabilities, not logits: every loss takes them as logits",
    "sigmoid": "all outputs lie between 0 and 1, as a sigmoid's: every loss takes them as logits",
    "one-hot": "the output is a decision only (one value for one class, another for all others): "
    "it has no useful gradient",
    "constant": "the output is the same for all images",
}
_NEXT: dict[OutputKind, str] = {
    "probabilities": "return the logits, before the softmax",
    "sigmoid": "return the logits, before the sigmoid",
    "one-hot": "return the logits, before the decision",
    "clipped": "return the logits, before they are clipped",
    "constant": "check weights and preprocessing: the input has no effect",
}


def _judge(evidence: Evidence, tolerance: float) -> Finding:
    """Warns where the output is not logits; log-probabilities are as good."""
    facts = facts_of(evidence)
    if facts is None or facts.output is None:
        return not_measured(NAME, evidence, "clean")
    output = facts.output
    images = 0 if facts.clean is None else len(facts.clean.samples)
    return Finding(
        check=NAME,
        status="warn" if output.kind in _NEXT else "pass",
        summary="; ".join([_summary(output), *_precision(facts.precision)]),
        samples=images,
        source=SOURCE,
        next=_NEXT.get(output.kind),
        data={"kind": output.kind},
    )


def _precision(precision: Precision | None) -> list[str]:
    return [] if precision is None else [precision.text]


def _summary(output: Output) -> str:
    between = f"from {output.lowest:.4g} to {output.highest:.4g}"
    if output.kind == "clipped":
        return f"the logits are clipped {output.detail}: beyond that their gradient is zero"
    if output.kind == "log-probabilities":
        return f"log-probabilities {between}; a softmax treats them as logits"
    return _WRONG.get(output.kind, f"logits {between}")


_WHY = (
    "Losses and attacks expect logits. A softmax, a clip or a decision at the end makes gradients "
    "vanish, and changes what confidence and loss mean."
)

CHECK = Check(NAME, SOURCE, _WHY, _judge)
