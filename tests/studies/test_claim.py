"""One claim beside what was measured."""

import math

import pytest
from pydantic import ValidationError

from flatguard.studies.claim import Claim

TEXTS = {"name": "a", "claim": "It holds.", "paper": "always", "rule": "it does"}


def test_a_number_that_is_not_finite_was_not_measured() -> None:
    for value in (math.nan, math.inf):
        claim = Claim(**TEXTS, ours=value, verdict="not-measured")
        assert claim.ours is None
        assert claim.result() == "not measured"


def test_results_are_numbers_or_percent_with_interval_and_count() -> None:
    found = {"ours": 0.5, "verdict": "agrees"}
    assert Claim(**TEXTS, **found).result() == "0.5"
    assert Claim(**TEXTS, **found, samples=4).result() == "0.5 (n = 4)"
    share = Claim(**TEXTS, **found, samples=4, interval=(0.25, 1), is_share=True)
    assert share.result() == "50.0% (95% interval 25.0% to 100.0%, n = 4)"


def test_an_unknown_verdict_is_refused() -> None:
    with pytest.raises(ValidationError, match="verdict"):
        Claim(**TEXTS, verdict="maybe")
