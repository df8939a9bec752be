"""A scale-free loss against cross-entropy: the same search, on the logit margin."""

from __future__ import annotations

from flatguard.checks.beyond import beyond_chance
from flatguard.checks.evidence import Evidence
from flatguard.checks.finding import Finding, not_run

NAME = "scale-free-loss"
SOURCE = "Croce and Hein 2020 (DLR); Carlini and Wagner 2017 (margin)"


def check_scale_free_loss(evidence: Evidence, tolerance: float) -> Finding:
    """Fails where the margin's loss finds more than the tolerance beyond chance.

    A few samples lost to a better loss are no masking: honest networks lose up to 10% of their
    survivors.
    """
    if not evidence.tried("loss"):
        if evidence.reported:
            return not_run(NAME, SOURCE, f"no margin loss was tried: {evidence.why_not('twins')}")
        return Finding(check=NAME, status="pass", summary="no sample survived", source=SOURCE)
    beyond = beyond_chance(evidence, "loss")
    status = beyond.status(tolerance)
    return Finding(
        check=NAME,
        status=status,
        summary=(
            f"{len(beyond.only)} survivors fall to the margin loss and not to chance"
            f"{beyond.doubt(tolerance)}"
        ),
        value=beyond.share,
        threshold=tolerance,
        interval=beyond.interval,
        samples=evidence.n,
        source=SOURCE,
        next="attack with a scale-free loss: --attack apgd-dlr" if status != "pass" else None,
        data={"p_value": beyond.p},
    )
