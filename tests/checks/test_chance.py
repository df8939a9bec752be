"""More than chance: exact counts, tolerance, and what is not tested."""

from dataclasses import replace

import pytest
from support.evidence import evidence, judged_by

from flatguard.checks.chance import ChanceQuestion, Signs, beyond_chance
from flatguard.checks.statistics import mcnemar

QUESTION = ChanceQuestion(
    check="a-check",
    source="a test",
    families=("loss",),
    probe="twins",
    level="fast",
    missing=lambda evidence: "no loss was tried",
    summary=lambda evidence, found: f"{len(found.only)} found",
    advice=lambda evidence: "do something",
)


def test_what_only_the_attempts_fool() -> None:
    found = beyond_chance(judged_by({"loss": range(12), "control": range(10, 13)}), "loss")
    assert found.only == frozenset(range(10))
    assert found.p == mcnemar(10, 1)
    assert found.share == 0.1
    assert found.interval[0] < 0.1 < found.interval[1]


@pytest.mark.parametrize(
    ("fooled", "tolerance", "status"),
    [(0, 0.05, "pass"), (5, 0.01, "pass"), (6, 0.05, "fail"), (6, 0.5, "warn")],
)
def test_significance_and_tolerance(fooled: int, tolerance: float, status: str) -> None:
    """Six against none is p = 0.031; five against none is 0.0625."""
    finding = QUESTION.judge(judged_by({"loss": range(fooled)}), tolerance)
    assert (finding.status, finding.value) == (status, fooled / 100)
    assert (finding.next is None) == (status == "pass")
    assert ("so few may be chance" in finding.summary) == (fooled == 5)


def test_weaker_families_are_taken_away_and_nothing_is_tested() -> None:
    question = replace(QUESTION, weaker=("temperature",))
    found = judged_by({"loss": range(8), "temperature": range(7)})
    assert question.judge(found, 0.0).status == "fail"
    assert question.judge(found, 0.05).status == "pass"


def test_signs_warn_also_where_nothing_was_tried() -> None:
    question = replace(QUESTION, signs=lambda evidence: Signs(["a sign"], {"sign": 1}))
    finding = question.judge(evidence(), 0.05)
    assert (finding.status, finding.value) == ("warn", None)
    assert finding.summary == "0 found; a sign"
    assert finding.data["sign"] == 1


def test_some_questions_never_fail() -> None:
    question = replace(QUESTION, can_fail=False)
    assert question.judge(judged_by({"loss": range(50)}), 0.05).status == "warn"


def test_where_nothing_was_tried() -> None:
    finding = QUESTION.judge(evidence(), 0.05)
    assert (finding.status, finding.summary) == ("not-run", "no loss was tried")
    assert finding.next == "flatguard audit RUN --checks fast"
    assert QUESTION.judge(evidence(survivors=()), 0.05).status == "pass"
    dear = replace(QUESTION, level="standard")
    assert dear.judge(evidence(), 0.05).next == "flatguard audit RUN --checks standard"
    assert dear.judge(evidence(survivors=()), 0.05).status == "not-run"
    assert dear.judge(judged_by(survivors=()), 0.05).status == "pass"
