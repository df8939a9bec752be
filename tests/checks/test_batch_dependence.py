"""The check `batch-dependence`: beside other images, in a smaller batch, alone."""

import pytest
from support.preflight import OTHER, SAME, judged, judged_without

from flatguard.checks.batch_dependence import CHECK
from flatguard.checks.preflight.facts import Difference


@pytest.mark.parametrize(
    ("part", "text"),
    [("other_neighbours", "beside other images"), ("smaller_batch", "in a smaller batch")],
)
def test_each_comparison_is_a_warning_of_its_own(part: str, text: str) -> None:
    found = judged(CHECK, **{part: OTHER})
    assert (found.status, found.samples) == ("warn", 16)
    assert f"up to 0.25 of their size {text}, decisions on 3 of 16" in found.summary
    assert "model.eval()" in (found.next or "")


def test_a_single_image_that_fails_is_named() -> None:
    found = judged(CHECK, single_image="gives (10,) for (1, 10)")
    assert found.status == "warn"
    assert "a batch of a single image fails: the model gives (10,) for (1, 10)" in found.summary


def test_batch_normalisation_is_named_as_the_cause() -> None:
    found = judged(CHECK, other_neighbours=OTHER, trained_parts=("batch normalisation",))
    assert "batch normalisation computes as in training" in found.summary


def test_rounding_is_no_dependence_and_what_is_not_finite_is() -> None:
    small = Difference(largest=9e-4, flips=0, images=16)
    assert judged(CHECK, smaller_batch=small).status == "pass"
    assert judged(CHECK, smaller_batch=small.model_copy(update={"largest": None})).status == "warn"


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"repeated": OTHER, "own_generator": True}, "a generator of its own"),
        ({"repeated": OTHER}, "depend on earlier calls"),
        ({}, "too few different images"),
    ],
)
def test_not_compared_is_not_passed(changes: dict[str, object], why: str) -> None:
    found = judged(CHECK, other_neighbours=None, smaller_batch=None, **changes)
    assert found.status == "not-run"
    assert why in found.summary
    assert found.next


@pytest.mark.parametrize(("apart", "status"), [(False, "pass"), (True, "warn")])
def test_draws_of_a_random_model_are_compared(apart: bool, status: str) -> None:
    random = {"repeated": OTHER, "own_generator": True, "batch_draws_apart": apart}
    found = judged(CHECK, other_neighbours=None, smaller_batch=None, **random)
    assert found.status == status


def test_what_was_compared_is_said() -> None:
    assert "beside other images and in a smaller batch" in judged(CHECK).summary
    random = judged(CHECK, other_seed=OTHER, other_neighbours=SAME, smaller_batch=None)
    assert random.status == "pass"
    assert "beside other images; its random numbers are others in a smaller" in random.summary


def test_where_the_model_raised_it_did_not_run() -> None:
    found = judged(CHECK, failed={"behaviour": "RuntimeError: no"})
    assert (found.status, "RuntimeError: no" in found.summary) == ("not-run", True)
    assert judged_without(CHECK).status == "not-run"
