"""Facts: stored and read again, and the exact test against a published figure."""

from fractions import Fraction
from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.preflight import OTHER, SAME, clean, evidence_of, facts

from flatguard.checks.evidence import ProbeEvidence
from flatguard.checks.preflight.facts import (
    Difference,
    PreflightFacts,
    Published,
    clean_table,
    differs,
    facts_of,
    not_measured,
)


def test_facts_are_read_as_they_were_stored() -> None:
    measured = facts(tried=(), published=Published(entry="a", accuracy=0.5), failed={"state": "x"})
    assert facts_of(evidence_of(measured)) == measured
    assert PreflightFacts.model_validate_json(measured.model_dump_json()) == measured


@pytest.mark.parametrize(
    "damage", [{"clean": 3}, {"forwards": "many"}, {"repeated": {"largest": "nan"}}]
)
def test_damaged_facts_are_not_measured(damage: dict[str, object]) -> None:
    stored = {**facts().model_dump(mode="json"), **damage}
    evidence = evidence_of(None)
    broken = type(evidence)(**{**vars(evidence), "probes": {"preflight": ProbeEvidence(stored)}})
    assert facts_of(broken) is None
    assert not_measured("a-check", broken, "clean").status == "not-run"


def test_facts_of_a_later_version_are_read_as_far_as_they_are_known() -> None:
    stored = {**facts().model_dump(mode="json"), "something_new": 3, "ran": True}
    evidence = evidence_of(None)
    later = type(evidence)(**{**vars(evidence), "probes": {"preflight": ProbeEvidence(stored)}})
    assert facts_of(later) == facts()


@given(st.integers(0, 60), st.integers(1, 60), st.integers(1, 99))
def test_below_the_published_figure_by_an_exact_test(
    correct: int, images: int, percent: int
) -> None:
    correct, share = min(correct, images), Fraction(percent, 100)
    at_most = sum(
        comb(images, k) * share**k * (1 - share) ** (images - k) for k in range(correct + 1)
    )
    gap = share - Fraction(correct, images)
    if abs(gap - Fraction(3, 100)) < Fraction(1, 10**9):
        return  # the float is as near as can be
    wanted = gap >= Fraction(3, 100) and at_most < Fraction(1, 1000)
    assert Published(entry="a", accuracy=percent / 100).is_above(correct, images) == wanted


def test_rounding_is_no_difference() -> None:
    assert not differs(None)
    assert not differs(SAME)
    assert not differs(Difference(largest=9e-5, flips=0, images=1))
    assert differs(OTHER)
    assert differs(Difference(largest=None, flips=0, images=1))
    assert facts(smaller_batch=OTHER).depends_on_its_batch
    assert not facts().depends_on_its_batch


def test_the_clean_pass_as_a_table() -> None:
    table = clean_table(clean(3, 5))
    assert table["clean_correct"].tolist() == [True, True, True, False, False]
    assert not table["failed"].any()
    assert len(clean_table(None)) == 0
