"""Model changes: do calls change the model's mode, parameters or buffers?"""

from __future__ import annotations

from flatguard.checks.check import Check
from flatguard.checks.evidence import Evidence
from flatguard.checks.finding import Finding
from flatguard.checks.preflight.facts import SOURCE, facts_of, not_measured

NAME = "model-changes"


def _judge(evidence: Evidence, tolerance: float) -> Finding:
    """Warns where calls switch to training mode, or change weights or running statistics."""
    facts = facts_of(evidence)
    if facts is None or facts.clean is None:
        return not_measured(NAME, evidence, "clean")
    found = []
    if facts.mode_changes:
        found.append(f"calls switch to training mode: {', '.join(facts.mode_changes)}")
    if facts.value_changes:
        found.append(f"calls change the values of {', '.join(facts.value_changes)}")
    if found:
        if facts.trained_parts:
            found.append(f"in training mode: {' and '.join(facts.trained_parts)}")
        return Finding(
            check=NAME, status="warn", samples=facts.forwards, source=SOURCE,
            summary="; ".join(found),
            next="call model.eval() once, and no train() and no updates in the forward pass",
        )  # fmt: skip
    return Finding(
        check=NAME, status="pass", samples=facts.forwards, source=SOURCE,
        summary="mode, parameters and buffers stay as they were",
    )  # fmt: skip


_WHY = (
    "A model whose calls change its mode, its weights or its running statistics is another model "
    "after the attack than before."
)

CHECK = Check(NAME, SOURCE, _WHY, _judge)
