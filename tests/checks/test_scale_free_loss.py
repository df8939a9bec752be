"""The margin loss against chance."""

from support.evidence import judged_by

from flatguard.checks.evidence import Evidence
from flatguard.checks.scale_free_loss import CHECK

TOLERANCE = 0.05


def status(found: Evidence) -> str:
    return CHECK.judge(found, TOLERANCE).status


def test_scale_free_loss() -> None:
    assert status(judged_by()) == "pass"
    assert status(judged_by({"loss": range(3)})) == "pass"
    assert status(judged_by({"loss": range(10)})) == "fail"
