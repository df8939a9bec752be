"""Longer searches, larger balls, and signs in the audited path."""

from dataclasses import replace

import pandas as pd
import pytest
from support.evidence import judged_by

from flatguard.checks.evidence import Evidence, ProbeEvidence
from flatguard.checks.more_budget import CHECK, still_rising

TOLERANCE = 0.05


def status(found: Evidence) -> str:
    return CHECK.judge(found, TOLERANCE).status


def test_more_budget() -> None:
    assert status(judged_by({"budget": ()})) == "pass"
    assert status(judged_by({"budget": range(10)})) == "fail"
    both = {"budget": range(10), "temperature": range(10)}
    assert status(judged_by(both)) == "pass"


def sweep(accuracies: list[float]) -> ProbeEvidence:
    rows = [
        {"sample": i, "sight": "raw", "eps": 0.1 * (e + 1), "fooled": i >= accuracy * 100}
        for e, accuracy in enumerate(accuracies)
        for i in range(100)
    ]
    return ProbeEvidence({"ran": True}, {"sweep": pd.DataFrame(rows)})


@pytest.mark.parametrize(
    ("curve", "sign"),
    [([0.5, 0.2, 0.0], None), ([0.2, 0.5, 0.0], "not monotone"), ([0.5, 0.4, 0.4], "largest")],
)
def test_accuracy_against_radius(curve: list[float], sign: str | None) -> None:
    base = judged_by({"budget": ()})
    found = replace(base, probes={**base.probes, "sweep": sweep(curve)})
    finding = CHECK.judge(found, TOLERANCE)
    assert finding.status == ("pass" if sign is None else "warn")
    assert sign is None or sign in finding.summary


def test_a_loss_that_still_rises() -> None:
    rows = pd.DataFrame({"sample": 0, "call": range(20), "bookkeeping": False})
    assert still_rising([rows.assign(loss=range(20))]) == pytest.approx(5 / 19)
    flat = [min(i, 10) for i in range(20)]
    assert still_rising([rows.assign(loss=flat)]) == 0.0
    assert still_rising([rows.head(5).assign(loss=1.0)]) is None
