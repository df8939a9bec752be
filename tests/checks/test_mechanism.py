"""Which mechanism explains what a gradient attack misses."""

from dataclasses import replace

import pytest
from support.evidence import determinism, evidence, gradients, judged_by

from flatguard.checks.evidence import Evidence
from flatguard.checks.mechanism import FIXES, SQUASHED_FIX, explanations
from flatguard.checks.verdict import judge

DEAD = gradients(16, margin_state="zero", drops={"raw": 0.0, "tempered": 0.0, "cutting": 1.0})
VANISHED = gradients(16, ratio=0.0, loss_state="zero", drops={"raw": 0.0, "tempered": 1.5})
SHATTERED = gradients(16, drops={"raw": 0.0, "tempered": 0.0, "smoothed": 1.0})
COARSER = gradients(16, drops={"raw": 0.3, "tempered": 0.35, "cutting": 0.8})
"""What k-winners-take-all shows: its own gradient leads somewhere, a repaired one further."""
BUMPY = gradients(16, predicted=10.0)
RANDOM = determinism(100, randomised=True)
SOME = range(20)


def mechanism_of(found: Evidence) -> str | None:
    """The first that is named."""
    named = explanations(found)
    return named[0].mechanism if named else None


@pytest.mark.parametrize(
    ("found", "mechanism"),
    [
        (evidence(), None),
        (judged_by({"loss": SOME}), None),
        (judged_by({"float64": SOME}, truth=VANISHED), "saturation"),
        (judged_by({"surrogate": SOME}, truth=DEAD), "unavailable-gradient"),
        (judged_by({"smoothed": SOME}, truth=SHATTERED), "shattered-gradient"),
        (judged_by({"eot": SOME}, repeated=RANDOM), "stochastic"),
        (judged_by({"repair": SOME}, truth=DEAD, repeated=RANDOM), "unavailable-gradient"),
        (judged_by({"budget": SOME}, truth=BUMPY), "rugged-loss"),
        (judged_by({"budget": SOME}, truth=BUMPY, steps=9), None),
    ],
)
def test_the_simplest_mechanism(found: Evidence, mechanism: str | None) -> None:
    assert mechanism_of(found) == mechanism
    if mechanism is not None:
        assert FIXES[mechanism] in judge(found).next


def test_a_longer_search_along_a_repaired_gradient_is_no_plain_search() -> None:
    """It hides no mechanism; a longer one along the model's own gradient shows a weak attack."""
    repaired = judged_by({"repair": SOME, "further": SOME, "budget": ()}, truth=COARSER)
    assert mechanism_of(repaired) == "shattered-gradient"
    assert mechanism_of(judged_by({"repair": SOME, "budget": SOME}, truth=COARSER)) is None


def test_advice_follows_what_found_most() -> None:
    squashed = judged_by({"saturating": SOME, "temperature": range(9)}, truth=VANISHED)
    assert judge(squashed).next[0] == SQUASHED_FIX
    scaled = judged_by({"saturating": range(9), "temperature": SOME}, truth=VANISHED)
    assert judge(scaled).next[0] == FIXES["saturation"]


def test_a_mechanism_explains_half_of_what_is_missed() -> None:
    few = judged_by({"float64": range(9), "black-box": range(9, 20)}, truth=VANISHED)
    assert mechanism_of(few) != "saturation"
    half = judged_by({"float64": range(10), "black-box": range(10, 20)}, truth=VANISHED)
    assert mechanism_of(half) == "saturation"


def test_an_attack_that_stops_short_is_weak() -> None:
    found = judged_by({"control": SOME, "budget": SOME}, truth=BUMPY)
    assert judge(found).mechanism == "rugged-loss"
    short = found.samples.assign(distance=0.01)
    assert judge(replace(found, samples=short)).verdict == "overestimated"


def test_a_little_randomness_explains_nothing() -> None:
    little = determinism(100, randomised=True)
    little.tables["repeated"]["difference"] = 1e-3
    little.tables["repeated"]["flips"] = False
    assert judge(judged_by({"control": SOME}, repeated=little)).verdict == "overestimated"


def test_wrong_gradients_are_named_by_their_condition_alone() -> None:
    wrong = gradients(16, agrees=-1.0, drops={"raw": 0.0, "tempered": 0.0})
    lucky = judge(judged_by({"control": SOME, "budget": SOME}, truth=wrong))
    assert (lucky.verdict, lucky.mechanism) == ("masked", "unavailable-gradient")
    assert lucky.explanations[0].confidence == "low"
    assert "probably by unavailable-gradient" in lucky.sentence


def test_a_saturated_head_is_not_an_unavailable_gradient() -> None:
    flat = gradients(16, margin_state="zero", drops={"raw": 0.0, "saturating": 1.0})
    found = explanations(judged_by({"saturating": SOME, "black-box": SOME}, truth=flat))
    assert [one.mechanism for one in found] == ["saturation"]
    cut_too = gradients(16, margin_state="zero", drops={"saturating": 1.0, "cutting": 1.0})
    both = explanations(judged_by({"saturating": SOME, "repair": SOME}, truth=cut_too))
    assert [one.mechanism for one in both] == ["saturation", "unavailable-gradient"]
    assert (
        "by saturation or unavailable-gradient"
        in judge(judged_by({"saturating": SOME, "repair": SOME}, truth=cut_too)).sentence
    )


def test_confidence_is_high_where_the_share_is_surely_most() -> None:
    all_of_them = explanations(judged_by({"float64": SOME}, truth=VANISHED))[0]
    assert (all_of_them.found, all_of_them.missed) == (20, 20)
    assert all_of_them.interval[0] > 0.5
    assert all_of_them.confidence == "high"
    half = judged_by({"float64": range(11), "black-box": range(11, 20)}, truth=VANISHED)
    assert explanations(half)[0].confidence == "moderate"
    assert "moderate confidence" in explanations(half)[0].sentence


def test_where_a_plain_search_finds_most_a_condition_alone_names_nothing() -> None:
    found = judged_by({"control": range(7), "float64": range(9)}, truth=VANISHED)
    assert explanations(found) == ()
    assert judge(found).verdict == "overestimated"
