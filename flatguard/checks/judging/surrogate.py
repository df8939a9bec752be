"""Transfer from other models: one sign among several, never decisive alone."""

from __future__ import annotations

from flatguard.checks.beyond import beyond_chance, unattempted
from flatguard.checks.evidence import Evidence
from flatguard.checks.finding import Finding

NAME = "surrogate-transfer"
SOURCE = "Papernot et al. 2017; Athalye et al. 2018"


def check_surrogate(evidence: Evidence, tolerance: float) -> Finding:
    """Warns where examples made on another model find more than chance does."""
    if not evidence.tried("surrogate"):
        why = f"no surrogate was attacked (name one with --surrogate): {_why(evidence)}"
        return unattempted(evidence, NAME, SOURCE, "surrogate", why)
    beyond = beyond_chance(evidence, "surrogate")
    return Finding(
        check=NAME,
        status="pass" if beyond.status(tolerance) == "pass" else "warn",
        summary=f"{len(beyond.only)} survivors fall to another model's examples and not to chance",
        value=beyond.share,
        threshold=tolerance,
        interval=beyond.interval,
        samples=evidence.n,
        source=SOURCE,
    )


def _why(evidence: Evidence) -> str:
    probe = evidence.probe("surrogate")
    refused = probe.facts.get("refused") if probe is not None else None
    if refused:
        return "; ".join(f"{name} is {why}" for name, why in refused.items())
    return evidence.why_not("surrogate")
