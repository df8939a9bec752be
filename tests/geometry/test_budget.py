"""Budgets: exact radii, distances, and what counts as inside."""

from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from flatguard.geometry.budget import Budget, parse_eps, pretty_eps
from flatguard.geometry.distance import distance


@given(numerator=st.integers(1, 255))
def test_eps_is_the_nearest_float_of_the_exact_quotient(numerator: int) -> None:
    assert parse_eps(f"{numerator}/255") == float(Fraction(numerator, 255))
    assert parse_eps(f" {numerator} / 255 ") == numerator / 255


@pytest.mark.parametrize("text", ["0.5", "1e-3", "2.5/255", "3"])
def test_eps_as_a_decimal(text: str) -> None:
    numerator, _, denominator = text.partition("/")
    assert parse_eps(text) == float(numerator) / float(denominator or 1)


@pytest.mark.parametrize("text", ["-8/255", "0", "0/255", "8/0", "eight", "", "nan", "inf", "8//5"])
def test_eps_that_is_no_radius(text: str) -> None:
    with pytest.raises(ValueError, match="eps: expected a "):
        parse_eps(text)


def test_eps_for_a_person() -> None:
    assert [pretty_eps(parse_eps(t)) for t in ("8/255", "0.5", "2.5/255", "0.1", "1")] == [
        "8/255", "0.5", "2.5/255", "0.1", "1",
    ]  # fmt: skip


@given(seed=st.integers(0, 10**6), eps=st.floats(1e-3, 0.3))
def test_rounding_does_not_push_an_example_out_of_its_budget(seed: int, eps: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(4, 3, 5, 5, generator=generator)
    sign = torch.randn(x.shape, generator=generator).sign()
    inside = (x + eps * sign).clamp(0, 1)
    outside = x + 1.001 * eps * sign
    budget = Budget("Linf", eps)
    assert budget.contains(distance(inside, x, "Linf")).all()
    assert not budget.contains(distance(outside, x, "Linf")).any()
