"""The check `earlier-calls`: does what was shown before change the answers?"""

import pytest
from support.preflight import OTHER, judged, judged_without

from flatguard.checks.earlier_calls import CHECK


@pytest.mark.parametrize(
    ("part", "text"),
    [
        ("repeated", "when the same images are shown again"),
        ("after_calls", "between a model that was called before and a new copy"),
        ("near_image", "on images near to those before"),
    ],
)
def test_each_comparison_is_a_warning(part: str, text: str) -> None:
    found = judged(CHECK, **{part: OTHER})
    assert found.status == "warn"
    assert text in found.summary
    assert "without memory" in (found.next or "")


def test_an_honest_model_passes() -> None:
    found = judged(CHECK)
    assert (found.status, found.samples) == ("pass", 16)


RANDOM = {"repeated": OTHER, "own_generator": True, "after_calls": None, "near_image": None}


@pytest.mark.parametrize(("apart", "status"), [(None, "not-run"), (False, "pass"), (True, "warn")])
def test_random_numbers_of_its_own_are_no_memory(apart: bool | None, status: str) -> None:
    found = judged(CHECK, **RANDOM, state_draws_apart=apart)
    assert found.status == status
    assert (found.next is None) == (status == "pass")


def test_without_a_copy_the_reason_is_said() -> None:
    found = judged(CHECK, after_calls=None, near_image=None)
    assert (found.status, "has no copy" in found.summary) == ("pass", True)
    failed = judged(CHECK, after_calls=None, failed={"state": "RuntimeError: no"})
    assert "RuntimeError: no" in failed.summary


def test_without_preflight_it_did_not_run() -> None:
    assert judged_without(CHECK).status == "not-run"
    assert judged(CHECK, repeated=None).status == "not-run"
