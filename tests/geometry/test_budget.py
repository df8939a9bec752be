"""Budgets: exact radii, distances, and what counts as inside."""

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from flatguard.geometry.budget import Budget, parse_eps, pretty_eps
from flatguard.geometry.distance import Distances, distance, within


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


def test_distances_of_the_flattened_difference() -> None:
    x = torch.zeros(1, 3, 2, 2)
    moved = x.clone()
    moved[0, 0, 0, 0], moved[0, 2, 1, 1] = 3.0, -4.0
    found = {norm: distance(moved, x, norm).item() for norm in ("Linf", "L2", "L1", "L0", "none")}
    assert found == {"Linf": 4.0, "L2": 5.0, "L1": 7.0, "L0": 2.0, "none": 4.0}


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


@pytest.mark.parametrize("norm", ["Linf", "L2", "L1", "L0"])
def test_distances_in_chunks_are_the_same(norm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    rows = torch.rand(11, 3, 4, 4, generator=generator)
    references = torch.rand(5, 3, 4, 4, generator=generator)
    index = torch.randint(5, (11,), generator=generator)
    expected = distance(rows, references[index], norm)
    monkeypatch.setattr("flatguard.geometry.distance.CHUNK_VALUES", 100)  # two rows at a time
    distances = Distances(references)
    for some in (slice(11), slice(3), slice(3, 11)):  # memory kept from a larger call is no matter
        (found,) = distances.to(rows[some], index[some], (norm,))
        assert torch.equal(found, expected[some])
    (exact,) = distances.to(rows.double(), index, (norm,))
    assert torch.allclose(exact, expected.to(exact), rtol=1e-6)
    assert distances.to(rows[:0], index[:0], (norm,))[0].shape == (0,)


@pytest.mark.parametrize("norm", ["Linf", "L2", "L1", "L0"])
def test_nan_is_never_inside(norm: str) -> None:
    x = torch.zeros(1, 1, 2, 2)
    broken = x.clone()
    broken[0, 0, 0, 0] = math.nan
    assert not Budget(norm, 10.0).contains(distance(broken, x, norm)).any()
    assert not Budget("none", None).contains(distance(broken, x, "none")).any()


def test_admissible() -> None:
    clean = torch.full((5, 1, 2, 2), 0.5)
    images = clean.clone()
    images[1] += 0.1
    images[2] += 0.1001
    images[3, 0, 0, 0] = float("nan")
    clean[4], images[4] = 0.95, 1.01
    assert within(images, clean, Budget("Linf", 0.1)).tolist() == [True, True, False, False, False]
    everywhere = within(images, clean, Budget("none", None)).tolist()
    assert everywhere == [True, True, True, False, False]
