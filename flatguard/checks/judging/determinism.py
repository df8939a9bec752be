"""Determinism: does the target say the same thing twice?"""

from __future__ import annotations

from flatguard.checks.evidence import Evidence
from flatguard.checks.finding import Finding, not_run
from flatguard.checks.statistics import interval

NAME = "determinism"
SOURCE = "Athalye et al. 2018 (expectation over transformation)"


def check_determinism(evidence: Evidence, tolerance: float) -> Finding:
    """Warns where the target is randomised: single passes and single gradients then mislead."""
    probe = evidence.probe(NAME)
    if probe is None or "repeated" not in probe.tables:
        return not_run(NAME, SOURCE, f"no image was shown twice: {evidence.why_not(NAME)}")
    table = probe.tables["repeated"]
    broken = int(table["difference"].isna().sum())
    if broken:
        return Finding(
            check=NAME, status="warn", samples=len(table), source=SOURCE,
            summary=f"NaN or infinite logits on {broken} of {len(table)} images shown again",
            next="mend the model: it gives no numbers",
        )  # fmt: skip
    if not probe.facts.get("randomised"):
        return Finding(
            check=NAME, status="pass", samples=len(table), source=SOURCE,
            summary=f"the same logits for {len(table)} images shown again",
            value=float(table["difference"].max()),
        )  # fmt: skip
    lucky = evidence.by_luck
    return Finding(
        check=NAME,
        status="fail" if len(lucky) / evidence.n > tolerance else "warn",
        summary=(
            f"the target is randomised: decisions flip on {table['flips'].mean():.0%} of the "
            f"images; {len(lucky)} survivors are wrong in most draws; gradients were averaged (EOT)"
        ),
        value=float(table["flips"].mean()),
        interval=interval(int(table["flips"].sum()), len(table)),
        samples=len(table),
        source=SOURCE,
        next="attack with expectation over transformation: --attack torchattacks:EOTPGD or rand",
        data={"survived_by_luck": len(lucky)},
    )
