"""Other orders of the classes: found where there is one, and only there."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from flatguard.checks.preflight.labels import is_much_better, other_order


def decisions(accuracy: float, classes: int, images: int, seed: int) -> tuple[np.ndarray, ...]:
    """True classes, and a model's answers, of which a share is right."""
    random = np.random.default_rng(seed)
    truth = random.integers(0, classes, images)
    wrong = (truth + random.integers(1, classes, images)) % classes
    return truth, np.where(random.random(images) < accuracy, truth, wrong)


@settings(max_examples=60, deadline=None)
@given(st.permutations(range(6)), st.integers(0, 99), st.floats(0.7, 1.0))
def test_any_permutation_of_the_labels_is_found(
    order: list[int], seed: int, accuracy: float
) -> None:
    truth, answers = decisions(accuracy, 6, 240, seed)
    labels = np.array(order)[truth]
    found = other_order(labels, answers, 6)
    moved = [a for a, b in enumerate(order) if a != b]
    assert (found is None) == (not moved)
    if found is not None:
        assert found.correct >= 0.9 * int((truth == answers).sum())


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.0, 1.0), st.integers(2, 20))
def test_no_order_is_found_where_labels_are_right(seed: int, accuracy: float, classes: int) -> None:
    truth, answers = decisions(max(accuracy, 1 / classes), classes, 200, seed)
    assert other_order(truth, answers, classes) is None


@pytest.mark.parametrize("shift", [1, 2, 5, 8, 9])
def test_a_shift_has_its_number(shift: int) -> None:
    truth, answers = decisions(0.9, 10, 200, 0)
    found = other_order((truth + shift) % 10, answers, 10)
    by, way = (shift, "high") if shift < 5 else (10 - shift, "low")
    if shift == 5:
        way = "low"  # as many up as down
    assert found is not None
    assert f"they are {'one' if by == 1 else by} too {way}" in found.text


def test_two_classes_are_swapped() -> None:
    truth, answers = decisions(0.9, 2, 100, 0)
    found = other_order(1 - truth, answers, 2)
    assert found is not None
    assert found.text == "the two classes are swapped"


def test_a_subset_with_its_own_numbers_among_many() -> None:
    """The labels 0 to 3 are the classes 70, 31, 5 and 99 of a hundred."""
    truth, answers = decisions(0.9, 4, 200, 0)
    classes = np.array([70, 31, 5, 99])
    found = other_order(truth, classes[answers], 100)
    assert found is not None
    assert "0 → 70, 1 → 31, 2 → 5, 3 → 99" in found.text
    assert found.correct == int((truth == answers).sum())


def test_a_part_of_the_classes_is_moved() -> None:
    truth, answers = decisions(0.95, 10, 300, 1)
    order = np.array([0, 1, 2, 5, 3, 4, 6, 7, 8, 9])
    found = other_order(order[truth], answers, 10)
    assert found is not None
    assert "3 → 4, 4 → 5, 5 → 3" in found.text


def test_few_images_show_no_order() -> None:
    assert other_order(np.arange(7), (np.arange(7) + 1) % 10, 10) is None


@pytest.mark.parametrize(("gained", "lost"), list(permutations((0, 5, 20, 60), 2)))
def test_much_better_is_a_gain_and_an_exact_sign_test(gained: int, lost: int) -> None:
    p = binom.sf(gained - 1, gained + lost, 0.5)
    wanted = gained - lost >= 20 and p < 0.001
    assert is_much_better(gained, lost, 200) == wanted
    assert not is_much_better(gained, lost, 200, tried=10**9) or p * 10**9 < 0.001
