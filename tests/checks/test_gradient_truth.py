"""Whether gradients are reliable: the judgement on evidence whose answer is known."""

from dataclasses import replace

import pytest
from support.evidence import gradients, judged_by

from flatguard.checks.evidence import Evidence, ProbeEvidence
from flatguard.checks.gradient_truth import CHECK

TOLERANCE = 0.05


def status(found: Evidence) -> str:
    return CHECK.judge(found, TOLERANCE).status


@pytest.mark.parametrize(
    ("truth", "expected"),
    [
        (gradients(16), "pass"),
        (gradients(16, margin_state="zero"), "fail"),
        (gradients(16, margin_state="missing"), "fail"),
        (gradients(16, margin_state="not finite"), "fail"),
        (gradients(16, agrees=-1.0), "fail"),
        (gradients(16, agrees=0.9), "pass"),
        (gradients(16, loss_state="zero", ratio=0.0), "fail"),
        (gradients(16, ratio=1e-6), "warn"),
        (gradients(16, drops={"raw": 0.0, "tempered": 0.01}), "warn"),
    ],
)
def test_gradient_truth(truth: ProbeEvidence, expected: str) -> None:
    assert status(judged_by(truth=truth)) == expected


def test_zero_underflow_missing_and_not_finite_are_distinguished() -> None:
    for state in ("zero", "missing", "not finite"):
        finding = CHECK.judge(judged_by(truth=gradients(4, margin_state=state)), TOLERANCE)
        assert finding.data["states"][f"margin {state}"] == 4
    underflow = CHECK.judge(judged_by(truth=gradients(4, ratio=1e-9)), TOLERANCE)
    assert underflow.data["vanished"] == 1.0
    assert underflow.data["dead"] == 0.0


def test_where_no_stage_can_be_isolated_it_says_so() -> None:
    dead = gradients(16, margin_state="zero")
    assert "the step that cuts the gradient was not found" in CHECK.judge(
        judged_by(truth=dead), TOLERANCE
    ).summary  # fmt: skip
    met = {"cutting": {"round": 1}, "all": {"round": 1}}
    found = judged_by(truth=replace(dead, facts={"ran": True, "met": met}))
    assert "repaired here: round" in CHECK.judge(found, TOLERANCE).summary
    vanished = judged_by(truth=gradients(16, loss_state="zero", ratio=0.0))
    assert "isolated" not in CHECK.judge(vanished, TOLERANCE).summary
