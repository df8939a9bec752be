"""The check `clean-accuracy`: beyond chance, as published, and not explained by a mistake."""

import pytest
from support.preflight import clean, judged, judged_without

from flatguard.checks.clean_accuracy import CHECK
from flatguard.checks.preflight.facts import Published, TriedInput


def test_beyond_chance_passes_with_its_interval() -> None:
    found = judged(CHECK)
    assert (found.status, found.value, found.threshold) == ("pass", 0.9, 0.1)
    assert found.summary == "90.0% (90 of 100); guessing reaches 10.0%"
    assert found.interval == pytest.approx((0.8238, 0.9510), abs=1e-4)


def test_no_better_than_chance_fails() -> None:
    found = judged(CHECK, clean=clean(9, 100))
    assert (found.status, found.data["answer"]) == ("fail", "at-chance")
    assert "no robustness to judge" in found.summary
    assert "flatguard preflight" in (found.next or "")


def test_too_few_images_are_a_warning_of_their_own() -> None:
    found = judged(CHECK, clean=clean(1, 2))
    assert (found.status, found.data["answer"]) == ("warn", "too-few")
    assert "evaluate more images" in (found.next or "")


def test_a_better_preprocessing_fails_and_is_named() -> None:
    better = TriedInput(
        name="BGR channels", how="with BGR channels", correct=90, own=40, gained=55, lost=5,
        images=100,
    )  # fmt: skip
    found = judged(CHECK, clean=clean(40, 100), tried=(better,))
    assert found.status == "fail"
    assert found.summary == "clean accuracy 40.0% (40 of 100); with BGR channels it is 90.0%"
    assert "correct that" in (found.next or "")


def test_far_below_the_published_figure_fails() -> None:
    published = Published(entry="Someone2020Title", accuracy=0.99)
    found = judged(CHECK, clean=clean(80, 100), published=published)
    assert found.status == "fail"
    assert "99.0% is published for Someone2020Title" in found.summary
    near = judged(CHECK, published=Published(entry="Someone2020Title", accuracy=0.93))
    assert near.status == "pass"


def test_without_an_image_it_did_not_run() -> None:
    assert judged_without(CHECK).status == "not-run"
