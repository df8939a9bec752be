"""Input writes: does a call write into the images that it is given?"""

from __future__ import annotations

from flatguard.checks.check import Check
from flatguard.checks.evidence import Evidence
from flatguard.checks.finding import Finding
from flatguard.checks.preflight.facts import SOURCE, facts_of, not_measured

NAME = "input-writes"


def _judge(evidence: Evidence, tolerance: float) -> Finding:
    """Warns where the forward pass changes its input in place."""
    facts = facts_of(evidence)
    if facts is None or facts.writes_input is None:
        return not_measured(NAME, evidence, "behaviour")
    if facts.writes_input:
        return Finding(
            check=NAME, status="warn", samples=1, source=SOURCE,
            summary="the model changes the image that it gets (its forward pass writes into its "
            "input); here every call got a copy",
            next="replace in-place operations on the input: x = x - mean in place of x.sub_(mean)",
        )  # fmt: skip
    return Finding(
        check=NAME,
        status="pass",
        samples=1,
        source=SOURCE,
        summary="the model does not change the image that it gets",
    )


_WHY = (
    "An attack keeps the tensor that it hands to the model. If the model writes into it, the "
    "search goes on from another image than it knows, outside of flatguard also with the caller's "
    "own images."
)

CHECK = Check(NAME, SOURCE, _WHY, _judge)
