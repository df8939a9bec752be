"""What the gradient-truth probe stores, as shares of its points."""

from dataclasses import replace

import pandas as pd
import pytest
from support.evidence import evidence, gradients, judged_by

from flatguard.checks.evidence import ProbeEvidence
from flatguard.checks.gradient_evidence import GradientEvidence, gradient_evidence, mean_drops


def of(probe: ProbeEvidence) -> GradientEvidence:
    found = gradient_evidence(judged_by(truth=probe))
    assert found is not None
    return found


def test_without_tables_there_is_none() -> None:
    assert gradient_evidence(evidence()) is None


def test_shares_and_states() -> None:
    half = gradients(4)
    half.tables["gradients"].loc[:1, ["margin_state", "loss_state"]] = "zero"
    found = of(half)
    assert (found.points, found.dead, found.no_loss, found.unavailable) == (4, 0.5, 0.5, 0.5)
    assert found.states == {"loss ok": 2, "loss zero": 2, "margin ok": 2, "margin zero": 2}
    still = gradients(4, margin_state="zero")
    still.tables["gradients"]["moves"] = 0.0
    assert (of(still).dead, of(still).unavailable) == (1.0, 0.0)


@pytest.mark.parametrize(("agrees", "contradicted"), [(1.0, 0.0), (0.51, 0.0), (0.49, 1.0)])
def test_a_change_that_is_half_of_its_prediction_contradicts(
    agrees: float, contradicted: float
) -> None:
    assert of(gradients(8, agrees=agrees)).contradicted == contradicted


def test_the_best_direction_and_the_usual_one() -> None:
    found = of(gradients(8, drops={"raw": 0.1, "tempered": 0.3, "smoothed": 0.9}))
    assert found.usual_drop == pytest.approx(0.3)
    assert found.best == "smoothed"
    assert found.linear == pytest.approx(0.3 / 0.5)


def test_one_huge_drop_counts_no_more_than_the_boundary() -> None:
    drops = pd.DataFrame({"candidate": ["a", "a", "b"], "drop": [1e9, 0.0, -1e9]})
    assert mean_drops(drops) == {"a": 2.0, "b": -2.0}


def test_values_that_leave_torch() -> None:
    left = {"cutting": {"numpy": 1}}
    assert of(replace(gradients(4), facts={"met": left})).leaves_torch
    repaired = {**left, "front": {"front": 1}}
    assert not of(replace(gradients(4), facts={"met": repaired})).leaves_torch
