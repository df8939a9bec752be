"""Twins against chance: the judgement on evidence whose answer is known."""

import pandas as pd
import pytest
from support.evidence import judged_by

from flatguard.checks.discrepancy import CHECK, crossed_ridge
from flatguard.checks.evidence import Evidence

TOLERANCE = 0.05


def status(found: Evidence) -> str:
    return CHECK.judge(found, TOLERANCE).status


@pytest.mark.parametrize(
    ("twin", "control", "expected"),
    [((), (), "pass"), (range(3), (), "pass"), (range(6), (), "fail"), (range(5), (), "pass"),
     (range(20), range(20), "pass"), (range(20), range(4, 20), "pass"),
     (range(20), range(40, 60), "pass"), (range(30), range(3), "fail")],
)  # fmt: skip
def test_discrepancy(twin: range, control: range, expected: str) -> None:
    """Six against none is p = 0.031; five against none is 0.0625."""
    found = judged_by({"temperature": twin, "control": control})
    assert status(found) == expected


def test_a_small_discrepancy_beyond_chance_warns() -> None:
    assert CHECK.judge(judged_by({"temperature": range(6)}), 0.2).status == "warn"


def test_what_the_paths_did() -> None:
    rows = [(0, [-3.0, -1.0, -9.0]), (1, [-9.0, -4.0, -3.9]), (2, [-9.0, -9.0, -9.1])]
    frame = pd.DataFrame(
        [
            {"sample": s, "call": c, "log_kappa": value, "bookkeeping": False}
            for s, values in rows
            for c, value in enumerate(values)
        ]
    )
    assert crossed_ridge(frame) == {0: "crossed", 1: "climbed", 2: "flat basin"}


def test_flat_survivors_have_a_negative_rank_correlation() -> None:
    """Here the first samples are the flattest, and they are the ones that survived and fell."""
    finding = CHECK.judge(judged_by({"temperature": range(60)}), TOLERANCE)
    assert finding.data["rank_biserial"] == pytest.approx(-1.0)
    paths = {(p["survived"], p["fooled_by_twin"]): p["samples"] for p in finding.data["paths"]}
    assert paths == {(True, True): 60, (False, True): 40}


def test_the_advice_is_to_attack_as_the_best_twin() -> None:
    found = judged_by({"temperature": range(10), "float64": range(30)})
    assert CHECK.judge(found, TOLERANCE).next == "attack the model in float64"
