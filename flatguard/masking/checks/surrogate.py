"""Transfer from other models: one sign among several, never decisive alone."""

from __future__ import annotations

from flatguard.masking.beyond import beyond_chance
from flatguard.masking.evidence import Evidence
from flatguard.masking.finding import Finding, not_run

NAME = "surrogate-transfer"
SOURCE = "Papernot et al. 2017; Athalye et al. 2018"


def check_surrogate(evidence: Evidence, tolerance: float) -> Finding:
    """Warns where examples made on another model find more than chance does."""
    if not evidence.tried("surrogate"):
        if evidence.reported:
            return not_run(
                NAME, SOURCE, f"no surrogate was attacked: {_why(evidence)}",
                "flatguard audit RUN --checks standard --surrogate MODEL",
            )  # fmt: skip
        if evidence.probe("surrogate") is None:
            return Finding(
                check=NAME, status="not-run", summary="nothing survived to be attacked",
                source=SOURCE,
            )  # fmt: skip
        return Finding(check=NAME, status="pass", summary="no sample survived", source=SOURCE)
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
