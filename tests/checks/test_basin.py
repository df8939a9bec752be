"""Paths that never leave their basin."""

from support.evidence import judged_by

from flatguard.checks.basin import CHECK
from flatguard.checks.evidence import Evidence

TOLERANCE = 0.05


def status(found: Evidence) -> str:
    return CHECK.judge(found, TOLERANCE).status


def test_basin() -> None:
    found = judged_by()
    assert status(found) == "pass"
    (table,) = found.trajectory
    table["loss"] = 0.1
    finding = CHECK.judge(found, TOLERANCE)
    assert (finding.status, finding.value, finding.samples) == ("warn", 1.0, 60)
