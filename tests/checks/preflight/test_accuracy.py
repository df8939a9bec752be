"""The clean accuracy of a run, in words, and what makes it doubtful."""

import pytest
from support.preflight import clean, evidence_of, facts

from flatguard.checks.preflight.accuracy import CleanAccuracy, clean_accuracy
from flatguard.checks.preflight.facts import CleanPass, Published, TriedInput


def better(name: str, correct: int, own: int = 40) -> TriedInput:
    gained = max(0, correct - own)
    return TriedInput(
        name=name, how=f"with {name}", correct=correct, own=own, gained=gained, lost=0, images=100
    )


def found(**changes: object) -> CleanAccuracy:
    accuracy = clean_accuracy(evidence_of(facts(**changes)))
    assert accuracy is not None
    return accuracy


def test_an_accuracy_that_nothing_stands_against() -> None:
    accuracy = found()
    assert accuracy.text == "90.0% (90 of 100)"
    assert (accuracy.nothing_to_judge, accuracy.undecided, accuracy.doubt) == (None, None, None)


def test_at_chance_there_is_nothing_to_judge_and_with_few_images_only_no_verdict() -> None:
    assert "not clearly better than guessing (10.0%)" in (
        found(clean=clean(8, 100)).nothing_to_judge or ""
    )
    few = found(clean=clean(1, 2))
    assert few.nothing_to_judge is None
    assert "so few images cannot tell it" in (few.undecided or "")


def test_the_best_preprocessing_is_named_and_those_that_cannot_be_told_from_it() -> None:
    tried = (better("A", 89), better("B", 90), better("C", 70), better("D", 42))
    accuracy = found(clean=clean(40, 100), tried=tried)
    assert accuracy.cause == "with A it is 89.0% (on these images, B is as good)"
    assert accuracy.undecided == accuracy.doubt
    alone = found(clean=clean(40, 100), tried=tried[2:])
    assert alone.cause == "with C it is 70.0%"


def test_a_small_gain_is_no_cause() -> None:
    assert found(clean=clean(70, 100), tried=(better("A", 79, own=70),)).cause is None


def test_of_two_causes_the_stronger_is_named() -> None:
    shifted = CleanPass(
        samples=tuple(range(100)),
        labels=tuple(n % 10 for n in range(100)),
        predictions=tuple((n + 1) % 10 for n in range(100)),
        lowest_pixel=0.0,
        highest_pixel=1.0,
    )
    cause = found(clean=shifted, tried=(better("A", 60, own=0),)).cause
    assert cause is not None
    assert "one too low; in the model's order it is 100.0%" in cause


@pytest.mark.parametrize(("correct", "named"), [(8, True), (60, False)])
def test_dark_images_are_named_where_the_accuracy_is_at_chance(correct: int, named: bool) -> None:
    dark = clean(correct, 100).model_copy(update={"highest_pixel": 1 / 255})
    cause = found(clean=dark).cause
    assert (cause is not None and "divided by 255 twice" in cause) == named


def test_the_published_figure_is_kept_only_where_it_is_out_of_reach() -> None:
    assert found(published=Published(entry="a", accuracy=0.91)).published is None
    doubt = found(clean=clean(60, 100), published=Published(entry="a", accuracy=0.91)).doubt
    assert doubt == "clean accuracy 60.0% (60 of 100), and 91.0% is published for a"


def test_without_samples_there_is_none() -> None:
    assert clean_accuracy(evidence_of(None)) is None
