"""An accuracy against chance: the exact test, against a sum of exact fractions."""

from fractions import Fraction
from math import comb

import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from flatguard.checks.preflight.chance import against_chance


def samples(labels: list[int], correct: int) -> pd.DataFrame:
    right = [number < correct for number in range(len(labels))]
    return pd.DataFrame({"label": labels, "clean_correct": right, "failed": False})


def tail(correct: int, images: int, guess: Fraction) -> Fraction:
    """The chance that a guess is right at least so often."""
    return sum(
        (comb(images, k) * guess**k * (1 - guess) ** (images - k)
         for k in range(correct, images + 1)),
        Fraction(0),
    )  # fmt: skip


@given(st.lists(st.integers(0, 3), min_size=2, max_size=60), st.integers(0, 60), st.integers(4, 12))
def test_the_answer_is_that_of_exact_arithmetic(
    labels: list[int], correct: int, classes: int
) -> None:
    correct, images = min(correct, len(labels)), len(labels)
    found = against_chance(samples(labels, correct), classes)
    assert found is not None
    largest = max(labels.count(label) for label in labels)
    guess = max(Fraction(1, classes), Fraction(largest, images))
    assert (found.correct, found.images) == (correct, images)
    assert abs(found.guess - guess) < 1e-12
    if largest == images:
        assert found.answer == "one-class"
    else:
        assert (found.answer == "beyond") == (tail(correct, images, guess) < Fraction(1, 20))


def test_too_few_is_told_from_at_chance() -> None:
    answers = {}
    for correct, images in ((1, 2), (5, 5), (10, 100), (14, 100), (30, 100), (0, 100)):
        found = against_chance(samples([n % 10 for n in range(images)], correct), 10)
        assert found is not None
        answers[correct, images] = found.answer
    assert answers == {
        (1, 2): "too-few", (5, 5): "beyond", (10, 100): "at-chance", (14, 100): "too-few",
        (30, 100): "beyond", (0, 100): "at-chance",
    }  # fmt: skip


def test_failed_samples_are_left_out() -> None:
    table = samples([0, 1, 2, 3] * 10, 40)
    table.loc[20:, "failed"] = True
    found = against_chance(table, 4)
    assert found is not None
    assert (found.images, found.accuracy) == (20, 1.0)
    assert against_chance(table[table["failed"]], 4) is None
