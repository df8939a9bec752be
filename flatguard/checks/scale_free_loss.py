"""Scale-free loss: the same search along the logit margin, against cross-entropy.

Its attempts are made with the twins of the check discrepancy.
"""

from __future__ import annotations

from flatguard.checks.advised_attack import scale_free
from flatguard.checks.chance import NOT_BY_CHANCE, BeyondChance, ChanceQuestion
from flatguard.checks.check import Check
from flatguard.checks.evidence import Evidence

NAME = "scale-free-loss"


def _summary(evidence: Evidence, found: BeyondChance) -> str:
    """A few samples lost to a better loss are no masking.

    Honest networks lose up to 10% of their survivors.
    """
    return (
        f"an attack on the margin (the right class's logit minus the next), whose gradient no "
        f"confidence makes vanish, fools {len(found.only)} survivors {NOT_BY_CHANCE}"
    )


_QUESTION = ChanceQuestion(
    check=NAME,
    source="Croce and Hein 2020 (DLR); Carlini and Wagner 2017 (margin)",
    families=("loss",),
    probe="twins",
    level="fast",
    missing=lambda evidence: (
        f"no attack on the margin between the logits was tried: {evidence.why_not('twins')}"
    ),
    summary=_summary,
    advice=scale_free,
)

_WHY = (
    "The gradient of cross-entropy vanishes when the model is confident; the gradient of the "
    "margin does not. Samples that only the margin loss fools survived because of the loss, not "
    "because the model is robust."
)

CHECK = Check(NAME, _QUESTION.source, _WHY, _QUESTION.judge, decisive=True)
