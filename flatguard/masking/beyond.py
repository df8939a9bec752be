"""What falls to some attempts and not to chance, with the exact test."""

from __future__ import annotations

from dataclasses import dataclass

from flatguard.masking.evidence import Evidence
from flatguard.masking.finding import Status
from flatguard.masking.statistics import interval, mcnemar

LEVEL = 0.05


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
