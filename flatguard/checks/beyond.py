"""What falls to some attempts and not to chance, with the exact test."""

from __future__ import annotations

from dataclasses import dataclass

from flatguard.checks.evidence import Evidence
from flatguard.checks.finding import Finding, Status, not_run
from flatguard.checks.statistics import interval, mcnemar

LEVEL = 0.05
LEVEL_OF_MORE = "standard"


@dataclass(frozen=True)
class Beyond:
    """Survivors that fell to some attempts and neither to the repeat nor to the control.

    Attributes:
        only: them.
        p: of the exact McNemar test against those that fell to chance only.
        share: of all samples.
        interval: exact 95% interval of the share.
    """

    only: frozenset[int]
    p: float
    share: float
    interval: tuple[float, float]

    def doubt(self, tolerance: float) -> str:
        """Why more than the tolerance is let pass; nothing where it is not."""
        if self.share <= tolerance or self.p < LEVEL:
            return ""
        return f"; too few to be beyond chance (p = {self.p:.2g})"

    def status(self, tolerance: float) -> Status:
        """Fails beyond chance and tolerance; warns beyond chance alone."""
        if self.p >= LEVEL or not self.only:
            return "pass"
        return "fail" if self.share > tolerance else "warn"


def beyond_chance(evidence: Evidence, *families: str) -> Beyond:
    """Compare what fell to these families with what fell to chance."""
    fell, chance = evidence.fell_to(*families), evidence.chance
    only, other = fell - chance, chance - fell
    p = mcnemar(len(only), len(other)) if len(only) > len(other) else 1.0
    return Beyond(
        frozenset(only), p, len(only) / max(1, evidence.n), interval(len(only), evidence.n)
    )


def unattempted(evidence: Evidence, check: str, source: str, probe: str, why: str) -> Finding:
    """The finding where a probe made no attempt: a pass only if it ran and nobody had survived."""
    if evidence.reported:
        return not_run(check, source, why, f"flatguard audit RUN --checks {LEVEL_OF_MORE}")
    if evidence.probe(probe) is None:
        return Finding(
            check=check, status="not-run", summary="nothing survived to be attacked", source=source
        )
    return Finding(check=check, status="pass", summary="no sample survived", source=source)
