"""Randomised targets, in evidence and for real."""

from support.evidence import determinism, judged_by

from flatguard.checks.determinism import CHECK
from flatguard.checks.evidence import Evidence

TOLERANCE = 0.05


def status(found: Evidence) -> str:
    return CHECK.judge(found, TOLERANCE).status


def test_determinism() -> None:
    assert status(judged_by()) == "pass"
    random = judged_by(repeated=determinism(100, randomised=True))
    assert status(random) == "warn"
    lucky = judged_by(repeated=determinism(100, randomised=True, wrong=range(10)))
    assert status(lucky) == "fail"
    broken = determinism(4)
    broken.tables["repeated"]["difference"] = float("nan")
    assert status(judged_by(repeated=broken)) == "warn"
