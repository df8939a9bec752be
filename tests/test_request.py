"""EvaluationRequest: validated with one line, frozen, and exact about its radius."""

import pytest
from pydantic import ValidationError

from flatguard.errors import UsageError
from flatguard.request import EvaluationRequest, derive_seed, make_request


def test_the_radius_is_kept_as_typed_and_parsed_exactly() -> None:
    spec = make_request(model="m", attack="a", norm="Linf", eps="8/255")
    assert spec.eps == "8/255"
    assert spec.budget().eps == 8 / 255
    again = EvaluationRequest.model_validate_json(spec.model_dump_json())
    assert again == spec


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("eps", "-8/255", "--eps: expected a positive number such as 8/255, got '-8/255'"),
        ("eps", "big", "--eps: expected a number such as 8/255 or 0.031, got 'big'"),
        ("norm", "Linfty", "--norm: Input should be 'Linf'"),
        ("n_examples", 0, "--n-examples: Input should be greater than or equal to 1, got 0"),
        ("batch_size", -3, "--batch-size"),
        ("logit_scale", 0.0, "--logit-scale"),
        ("logit_scale", float("nan"), "--logit-scale"),
        ("seed", -1, "--seed"),
        ("losses", ("hinge",), "--loss: expected one of focal, focal:GAMMA, brier and kl:ALPHA, "),
        ("losses", ("kl:2",), "--loss: expected kl:ALPHA with a label smoothing in [0, 1]"),
        ("losses", ("brier", "brier"), "--loss: expected each loss once, got brier, brier"),
        ("colour", "red", "--colour: there is no such option"),
    ],
)
def test_a_bad_field_is_one_line(field: str, value: object, expected: str) -> None:
    with pytest.raises(UsageError) as caught:
        make_request(model="m", attack="a", **{field: value})
    assert str(caught.value).startswith(expected)
    assert "\n" not in str(caught.value)


def test_a_spec_is_frozen() -> None:
    spec = make_request(model="m", attack="a")
    with pytest.raises(ValidationError):
        spec.seed = 3  # type: ignore[misc]


def test_an_unresolved_spec_has_no_budget() -> None:
    with pytest.raises(ValueError, match="not resolved"):
        make_request(model="m", attack="a").budget()


def test_seeds_differ_by_seed_block_and_part() -> None:
    found = {derive_seed(s, b, p) for s in range(5) for b in range(50) for p in ("apgd-ce", "x")}
    assert len(found) == 500
    assert derive_seed(0, 0, "apgd-ce") == derive_seed(0, 0, "apgd-ce")
    assert all(0 <= seed < 2**31 for seed in found)
