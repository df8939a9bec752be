"""Every check on evidence for which its answer is known; and on none, where it has not run."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from support.evidence import attempts, evidence, gradients, judged_by
from support.evidence import determinism as repeated_calls

from flatguard.checks import (
    basin,
    black_box,
    determinism,
    discrepancy,
    gradient_truth,
    more_budget,
    scale_free_loss,
    surrogate_transfer,
)
from flatguard.checks.check import Check
from flatguard.checks.evidence import Evidence, ProbeEvidence
from flatguard.checks.finding import MORE_CHECKS, advice
from flatguard.checks.registry import check_names, load_checks

CHECKS = load_checks()
TOLERANCE = 0.05


def status(check: Check, found: Evidence) -> str:
    return check.judge(found, TOLERANCE).status


@pytest.mark.parametrize("check", CHECKS, ids=check_names())
def test_what_did_not_run_has_not_passed(check: Check) -> None:
    finding = check.judge(evidence(), TOLERANCE)
    if check.name == "basin":
        assert finding.status == "pass"  # it reads the audited trajectory itself
    else:
        assert finding.status == "not-run"
        assert finding.value is None
        assert finding.next is not None


@pytest.mark.parametrize("check", CHECKS, ids=check_names())
def test_a_probe_that_could_not_run_is_not_run_and_says_why(check: Check) -> None:
    names = ("determinism", "gradient-truth", "twins", "square-200", "longer-60", "surrogate-ab")
    failed = {n: ProbeEvidence({"ran": False, "reason": "the model is on strike"}) for n in names}
    finding = check.judge(evidence(probes=failed), TOLERANCE)
    if check.name != "basin":
        assert finding.status == "not-run"
        assert "on strike" in finding.summary


def test_every_finding_names_its_source_and_is_in_order() -> None:
    findings = [check.judge(judged_by(), TOLERANCE) for check in CHECKS]
    assert all(finding.source for finding in findings)
    assert tuple(finding.check for finding in findings) == check_names()
    assert len(check_names()) == 8


@pytest.mark.parametrize(
    ("twin", "control", "expected"),
    [((), (), "pass"), (range(3), (), "pass"), (range(6), (), "fail"), (range(5), (), "pass"),
     (range(20), range(20), "pass"), (range(20), range(4, 20), "pass"),
     (range(20), range(40, 60), "pass"), (range(30), range(3), "fail")],
)  # fmt: skip
def test_discrepancy(twin: range, control: range, expected: str) -> None:
    """Six against none is p = 0.031; five against none is 0.0625."""
    found = judged_by({"temperature": twin, "control": control})
    assert status(discrepancy.CHECK, found) == expected


def test_a_small_discrepancy_beyond_chance_warns() -> None:
    assert discrepancy.CHECK.judge(judged_by({"temperature": range(6)}), 0.2).status == "warn"


def test_what_the_paths_did() -> None:
    rows = [(0, [-3.0, -1.0, -9.0]), (1, [-9.0, -4.0, -3.9]), (2, [-9.0, -9.0, -9.1])]
    frame = pd.DataFrame(
        [
            {"sample": s, "call": c, "log_kappa": value, "bookkeeping": False}
            for s, values in rows
            for c, value in enumerate(values)
        ]
    )
    assert discrepancy.crossed_ridge(frame) == {0: "crossed", 1: "climbed", 2: "flat basin"}


def test_flat_survivors_have_a_negative_rank_correlation() -> None:
    """Here the first samples are the flattest, and they are the ones that survived and fell."""
    finding = discrepancy.CHECK.judge(judged_by({"temperature": range(60)}), TOLERANCE)
    assert finding.data["rank_biserial"] == pytest.approx(-1.0)
    paths = {(p["survived"], p["fell_to_twin"]): p["samples"] for p in finding.data["paths"]}
    assert paths == {(True, True): 60, (False, True): 40}


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
    assert status(gradient_truth.CHECK, judged_by(truth=truth)) == expected


def test_zero_underflow_missing_and_not_finite_are_told_apart() -> None:
    for state in ("zero", "missing", "not finite"):
        finding = gradient_truth.CHECK.judge(
            judged_by(truth=gradients(4, margin_state=state)), TOLERANCE
        )
        assert finding.data["states"][f"margin {state}"] == 4
    underflow = gradient_truth.CHECK.judge(judged_by(truth=gradients(4, ratio=1e-9)), TOLERANCE)
    assert underflow.data["vanished"] == 1.0
    assert underflow.data["dead"] == 0.0


def test_where_no_stage_can_be_isolated_it_says_so() -> None:
    dead = gradients(16, margin_state="zero")
    assert "no cut stage could be isolated" in gradient_truth.CHECK.judge(
        judged_by(truth=dead), TOLERANCE
    ).summary  # fmt: skip
    met = {"cutting": {"round": 1}, "all": {"round": 1}}
    found = judged_by(truth=replace(dead, facts={"ran": True, "met": met}))
    assert "repaired stages: round" in gradient_truth.CHECK.judge(found, TOLERANCE).summary
    vanished = judged_by(truth=gradients(16, loss_state="zero", ratio=0.0))
    assert "isolated" not in gradient_truth.CHECK.judge(vanished, TOLERANCE).summary


def test_scale_free_loss() -> None:
    assert status(scale_free_loss.CHECK, judged_by()) == "pass"
    assert status(scale_free_loss.CHECK, judged_by({"loss": range(3)})) == "pass"
    assert status(scale_free_loss.CHECK, judged_by({"loss": range(10)})) == "fail"


def test_determinism() -> None:
    assert status(determinism.CHECK, judged_by()) == "pass"
    random = judged_by(repeated=repeated_calls(100, randomised=True))
    assert status(determinism.CHECK, random) == "warn"
    lucky = judged_by(repeated=repeated_calls(100, randomised=True, wrong=range(10)))
    assert status(determinism.CHECK, lucky) == "fail"
    broken = repeated_calls(4)
    broken.tables["repeated"]["difference"] = float("nan")
    assert status(determinism.CHECK, judged_by(repeated=broken)) == "warn"


def test_black_box_and_surrogate() -> None:
    assert status(black_box.CHECK, judged_by({"black-box": range(10)})) == "fail"
    assert status(black_box.CHECK, judged_by({"black-box": ()})) == "pass"
    assert (
        status(surrogate_transfer.CHECK, judged_by({"surrogate": range(50)})) == "warn"
    )  # never alone
    assert status(surrogate_transfer.CHECK, judged_by({"surrogate": ()})) == "pass"


def test_more_budget() -> None:
    assert status(more_budget.CHECK, judged_by({"budget": ()})) == "pass"
    assert status(more_budget.CHECK, judged_by({"budget": range(10)})) == "fail"
    both = {"budget": range(10), "temperature": range(10)}
    assert status(more_budget.CHECK, judged_by(both)) == "pass"


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
    finding = more_budget.CHECK.judge(found, TOLERANCE)
    assert finding.status == ("pass" if sign is None else "warn")
    assert sign is None or sign in finding.summary


def test_a_success_that_was_lost() -> None:
    found = judged_by({"budget": ()})
    (table,) = found.trajectory
    table.loc[(table["sample"] == 3) & (table["call"] == 1), "margin"] = -1.0
    finding = more_budget.CHECK.judge(found, TOLERANCE)
    assert (finding.status, finding.data["lost_successes"]) == ("warn", 1)


def test_a_loss_that_still_rises() -> None:
    rows = pd.DataFrame({"sample": 0, "call": range(20), "bookkeeping": False})
    assert more_budget.still_rising([rows.assign(loss=range(20))]) == pytest.approx(5 / 19)
    flat = [min(i, 10) for i in range(20)]
    assert more_budget.still_rising([rows.assign(loss=flat)]) == 0.0
    assert more_budget.still_rising([rows.head(5).assign(loss=1.0)]) is None


def test_basin() -> None:
    found = judged_by()
    assert status(basin.CHECK, found) == "pass"
    (table,) = found.trajectory
    table["loss"] = 0.1
    finding = basin.CHECK.judge(found, TOLERANCE)
    assert (finding.status, finding.value, finding.samples) == ("warn", 1.0, 60)


def test_attempts_of_a_better_level_are_preferred() -> None:
    found = evidence(
        probes={
            "square-200": attempts(100, range(60), {"black-box": range(1)}),
            "square-2000": attempts(100, range(60), {"black-box": range(9)}),
        }
    )
    assert found.probe("square") is found.probes["square-2000"]
    assert found.fooled_by("black-box") == set(range(9))


def test_advice_names_the_run_as_it_is_typed() -> None:
    assert advice(MORE_CHECKS, Path("a run")) == "flatguard audit 'a run' --checks fast"
    assert advice("attack the temperature twin", Path("a")) == "attack the temperature twin"
