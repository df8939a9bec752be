"""Determinism, as far as preflight measures it."""

from typing import Any

import pytest
from support.preflight import OTHER, facts

from flatguard.checks.preflight.repeats import repeatable


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"other_seed": OTHER}, "the model is random: with other random numbers"),
        ({"repeated": OTHER, "own_generator": True}, "a generator of its own"),
        ({"repeated": OTHER}, "see earlier-calls"),
        ({"other_neighbours": OTHER}, "in the same batch only: see batch-dependence"),
        ({"smaller_batch": OTHER}, "in the same batch only: see batch-dependence"),
        ({"other_seed": OTHER, "trained_parts": ("dropout",)}, "dropout is in training mode"),
    ],
)
def test_each_cause_has_its_own_words(changes: dict[str, Any], text: str) -> None:
    found = repeatable(facts(**changes))
    assert found.status == "warn"
    assert text in found.summary


def test_randomness_is_told_with_its_size_and_what_to_do() -> None:
    found = repeatable(facts(other_seed=OTHER))
    assert (
        "logits differ by up to 0.25 of their size, and 3 of 16 decisions change" in found.summary
    )
    assert "EOTPGD" in (found.next or "")


def test_a_model_that_repeats_itself_passes_and_an_untried_one_does_not() -> None:
    assert repeatable(facts()).status == "pass"
    failed = repeatable(facts(repeated=None, failed={"behaviour": "RuntimeError: no"}))
    assert (failed.status, failed.summary) == ("not-run", "RuntimeError: no")
