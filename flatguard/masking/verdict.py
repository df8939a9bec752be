"""The verdict: can this robust accuracy be believed?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict

from flatguard.masking.checks import CORE, run_checks
from flatguard.masking.checks.gradient_truth import USEFUL, truth_of
from flatguard.masking.evidence import Evidence
from flatguard.masking.finding import Finding
from flatguard.masking.mechanism import Mechanism, mechanism_of
from flatguard.masking.statistics import CONFIDENCE_LEVEL, interval

Word = Literal["vulnerable", "consistent", "overestimated", "masked", "inconclusive"]
TOLERANCE = 0.05

EXIT_CODES: dict[Word, int] = {
    "vulnerable": 0, "consistent": 0, "overestimated": 1, "masked": 1, "inconclusive": 3,
}  # fmt: skip

MENDING: dict[Mechanism, str] = {
    "saturation": "divide the logits by a temperature (a gap of about 2), or attack the margin",
    "unavailable-gradient": "attack through the stage with a straight-through gradient (BPDA)",
    "shattered-gradient": "average gradients over noise, or attack with Square",
    "stochastic": "average gradients over draws (EOT), and judge by most of several draws",
    "rugged-loss": "attack with more restarts and more, smaller steps",
}


class Verdict(BaseModel):
    """The answer, and what it rests on.

    Attributes:
        verdict: `vulnerable`, `consistent`, `overestimated`, `masked` or `inconclusive`.
        mechanism: what explains a masked number.
        sentence: the answer as a person says it.
        robust_accuracy: the audited number.
        corrected_robust_accuracy: the worst case for each sample over everything tried.
        corrected_interval: its exact 95% interval.
        overestimate: by how much the audited number is too high.
        overestimate_interval: exact 95% interval of that share.
        tolerance: how much of it is let pass.
        findings: of every check, also those that did not run.
        next: what to run or mend next.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    verdict: Word
    mechanism: Mechanism | None
    sentence: str
    robust_accuracy: float
    corrected_robust_accuracy: float
    corrected_interval: tuple[float, float]
    overestimate: float
    overestimate_interval: tuple[float, float]
    confidence_level: float = CONFIDENCE_LEVEL
    tolerance: float
    findings: tuple[Finding, ...]
    next: tuple[str, ...]

    @property
    def exit_code(self) -> int:
        """0 for a number that may be believed, 1 for one that may not, 3 where it is open."""
        return EXIT_CODES[self.verdict]


def judge(evidence: Evidence, tolerance: float = TOLERANCE) -> Verdict:
    """Judge evidence; the same evidence in another order gives the same verdict.

    Args:
        evidence: of a run.
        tolerance: the overestimate that is let pass, as a share of all samples.
    """
    findings = run_checks(evidence, tolerance)
    n, reported, fallen = evidence.n, len(evidence.reported), len(evidence.fallen)
    corrected = reported - fallen
    too_high = fallen / n > tolerance
    mechanism = mechanism_of(evidence) if too_high else None
    word = _word(evidence, findings, too_high, mechanism)
    return Verdict(
        verdict=word,
        mechanism=mechanism,
        sentence=_sentence(word, mechanism, reported, corrected, n),
        robust_accuracy=reported / n,
        corrected_robust_accuracy=corrected / n,
        corrected_interval=interval(corrected, n),
        overestimate=fallen / n,
        overestimate_interval=interval(fallen, n),
        tolerance=tolerance,
        findings=tuple(findings),
        next=_next(word, mechanism, findings),
    )


def _word(
    evidence: Evidence, findings: list[Finding], too_high: bool, mechanism: Mechanism | None
) -> Word:
    if too_high:
        return "overestimated" if mechanism is None else "masked"
    corrected = len(evidence.reported) - len(evidence.fallen)
    chance = 1.0 / evidence.num_classes
    if evidence.complete and interval(corrected, evidence.n)[1] <= chance:
        return "vulnerable"
    status = {finding.check: finding.status for finding in findings}
    if not evidence.complete or any(status[name] == "not-run" for name in CORE):
        return "inconclusive"
    return "inconclusive" if _disagree(evidence, status) else "consistent"


def _disagree(evidence: Evidence, status: Mapping[str, str]) -> bool:
    """Gradients are worth nothing, no mended one leads anywhere, and nobody searched without."""
    if status["gradient-truth"] != "fail" or status["black-box"] == "pass":
        return False
    truth = truth_of(evidence)
    return truth is not None and all(drop < USEFUL for drop in truth.drops.values())


def _sentence(
    word: Word, mechanism: Mechanism | None, reported: int, corrected: int, n: int
) -> str:
    was, now = f"{reported / n:.1%}", f"{corrected / n:.1%}"
    if word == "masked":
        return f"masked by {mechanism}: {was} was reported, at most {now} is true"
    if word == "overestimated":
        return f"overestimated: {was} was reported, at most {now} is true; the attack was too weak"
    if word == "vulnerable":
        return f"vulnerable: {now} is no better than chance"
    if word == "inconclusive":
        return f"inconclusive: {was} can neither be believed nor refuted with what was run"
    return f"consistent: no evidence against {was}; the worst case over everything tried is {now}"


def _next(word: Word, mechanism: Mechanism | None, findings: list[Finding]) -> tuple[str, ...]:
    steps = []
    if mechanism is not None:
        steps.append(MENDING[mechanism])
    elif word == "overestimated":
        steps.append("audit again with a stronger attack: --attack standard")
    order = {"fail": 0, "warn": 1, "not-run": 2, "pass": 3}
    for finding in sorted(findings, key=lambda finding: order[finding.status]):
        if finding.next is not None and finding.next not in steps:
            steps.append(finding.next)
    return tuple(steps) or ("nothing: every check ran and passed",)
