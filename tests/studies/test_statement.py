"""Statements as data: texts are filled in, and bounds judge."""

import pytest
from pydantic import ValidationError
from scipy.stats import binomtest

from flatguard.studies.statement import Statement, read_data, statements
from flatguard.studies.stutz.training_runs import RunStatement


def statement(**fields: object) -> Statement:
    texts = {"name": "n-{d}", "claim": "In {d}.", "paper": "always", "rule": "at most {at_most:g}"}
    return Statement(**{**texts, "missing": "no {d}", "note": "{broken} of {n}"} | fields)


def test_texts_are_filled_in() -> None:
    found = statement(at_most=0.5).share(3, 4, d=2)
    assert (found.name, found.claim, found.rule) == ("n-2", "In 2.", "at most 0.5")
    assert found.note == "1 of 4"
    missing = statement().not_measured(d=2)
    assert (missing.verdict, missing.note, missing.ours) == ("not-measured", "no 2", None)


@pytest.mark.parametrize(
    ("rule", "agrees"),
    [
        ({}, True), ({"at_least": 0.75}, True), ({"at_least": 0.76}, False),
        ({"at_most": 0.75}, True), ({"at_most": 0.74}, False),
        ({"interval_above": 0.19}, True), ({"interval_above": 0.2}, False),
    ],
)  # fmt: skip
def test_bounds_judge(rule: dict, agrees: bool) -> None:
    """3 of 4 is 75%, with the exact interval from 19.4% on."""
    found = statement(**rule).share(3, 4, d=0)
    assert found.verdict == ("agrees" if agrees else "differs")
    ends = binomtest(3, 4).proportion_ci(0.95, method="exact")
    assert found.interval == pytest.approx((ends.low, ends.high))
    assert statement(**rule).share(3, 4, also=False, d=0).verdict == "differs"


def test_a_miss_refutes_where_the_statement_is_universal() -> None:
    assert statement(refutes=True, at_least=1).share(3, 4, d=0).verdict == "refuted"
    assert statement(refutes=True, at_least=1).share(4, 4, d=0).verdict == "agrees"


def test_no_samples_are_not_measured_unless_a_counterexample_decides() -> None:
    assert statement(at_least=1).share(0, 0, d=0).verdict == "not-measured"
    decided = statement(refutes=True).share_of([], also=False, d=0)
    assert (decided.verdict, decided.ours, decided.interval) == ("refuted", None, None)


def test_every_entry_is_a_statement_and_an_unknown_key_is_refused() -> None:
    walter, stutz = (read_data(paper, "claims.yaml") for paper in ("walter", "stutz"))
    assert all(statements("walter", group) for group in walter)
    for group in stutz.values():
        for name, entry in group.items():
            assert RunStatement(name=name, **entry).claim.endswith(".")
    with pytest.raises(ValidationError, match="at_lest"):
        statement(at_lest=1)
