"""Lemmas 11 and 12 and Table 1, against curvatures that are known."""

from collections.abc import Callable

import pytest
import torch
from support.studies import Plain, claim_of, subject_of, verdicts

from flatguard.geometry.sharpness import log_sum_p_one_minus_p
from flatguard.studies.result import Result
from flatguard.studies.walter.path import walk_all


def test_table_1_has_one_false_mark(result_of: Callable[[str], Result]) -> None:
    result = result_of("walter-table1")
    found = verdicts(result.claims)
    assert found.pop("reverse KL to a soft target") == "refuted"
    assert set(found.values()) == {"agrees"}
    assert len(found) == 6
    # -log p has h_y p_y² = 1 everywhere; p log p has 1/p, at most a million 1e-6 from the edge.
    assert claim_of(result, "cross-entropy").ours == pytest.approx(1.0)
    assert claim_of(result, "Brier").ours == pytest.approx(2.0)
    reverse = claim_of(result, "reverse KL to a soft target").ours
    assert reverse is not None
    assert reverse >= 1e6


def test_kappa_vanishes_where_its_logarithm_falls(
    plain_digits: Plain, result_of: Callable[[str], Result]
) -> None:
    path = walk_all(subject_of("walter-lemma11", plain_digits, 40))
    logits = path[path.correct()].logits[0].double()
    change = log_sum_p_one_minus_p(logits * 1000) - log_sum_p_one_minus_p(logits)
    change = change + 2 * torch.tensor(1000.0).double().log()
    result = result_of("walter-lemma11")
    assert claim_of(result, "as-printed").verdict == "refuted"
    assert claim_of(result, "kappa").ours == float((change < -10).double().mean())


def test_other_losses_collapse_and_are_named(result_of: Callable[[str], Result]) -> None:
    found = {claim.name: claim for claim in result_of("walter-lemma12").claims}
    assert set(found) == {
        f"{loss}-{what}"
        for loss in ("focal:2", "brier", "kl:0.1")
        for what in ("collapses", "valley")
    }
    assert "KL to a smoothed label (kl:0.1)" in found["kl:0.1-collapses"].claim
    assert found["kl:0.1-collapses"].paper == "assumption (A) fails: the lemma says nothing"
    assert found["brier-collapses"].paper == "the limit is 0"
    assert found["brier-collapses"].samples > found["brier-valley"].samples > 0
