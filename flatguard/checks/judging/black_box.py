"""Black box beats white box: what gradients do not find and searches without them do."""

from __future__ import annotations

from flatguard.checks.beyond import beyond_chance, unattempted
from flatguard.checks.evidence import Evidence
from flatguard.checks.finding import Finding

NAME = "black-box"
SOURCE = "Athalye et al. 2018; Andriushchenko et al. 2020 (Square)"


def check_black_box(evidence: Evidence, tolerance: float) -> Finding:
    """Fails where Square or noise finds more than the tolerance beyond the gradient's control."""
    if not evidence.tried("black-box"):
        why = f"Square was not asked: {evidence.why_not('square')}"
        return unattempted(evidence, NAME, SOURCE, "square", why)
    beyond = beyond_chance(evidence, "black-box", "noise")
    status = beyond.status(tolerance)
    found = {"noise": len(evidence.fell_to("noise")), "square": len(evidence.fell_to("black-box"))}
    return Finding(
        check=NAME,
        status=status,
        summary=(
            f"{len(beyond.only)} survivors fall without any gradient and not to chance"
            f"{beyond.doubt(tolerance)}"
        ),
        value=beyond.share,
        threshold=tolerance,
        interval=beyond.interval,
        samples=evidence.n,
        source=SOURCE,
        next="the gradient hides something: see gradient-truth" if status != "pass" else None,
        data={"p_value": beyond.p, **found},
    )
