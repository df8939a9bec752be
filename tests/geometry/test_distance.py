"""Distances: the norms of the difference, in chunks, and the images within a budget."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from flatguard.geometry.budget import Budget
from flatguard.geometry.distance import Distances, distance, within


def test_distances_of_the_flattened_difference() -> None:
    x = torch.zeros(1, 3, 2, 2)
    moved = x.clone()
    moved[0, 0, 0, 0], moved[0, 2, 1, 1] = 3.0, -4.0
    found = {norm: distance(moved, x, norm).item() for norm in ("Linf", "L2", "L1", "L0", "none")}
    assert found == {"Linf": 4.0, "L2": 5.0, "L1": 7.0, "L0": 2.0, "none": 4.0}


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


@pytest.mark.parametrize("norm", ["Linf", "L2", "L1", "L0"])
def test_nan_is_never_inside(norm: str) -> None:
    x = torch.zeros(1, 1, 2, 2)
    broken = x.clone()
    broken[0, 0, 0, 0] = math.nan
    assert not Budget(norm, 10.0).contains(distance(broken, x, norm)).any()
    assert not Budget("none", None).contains(distance(broken, x, "none")).any()


@given(seed=st.integers(0, 10**6))
def test_sums_of_many_values_agree_with_float64(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.rand(2, 2, 3, 50, 50, generator=generator)
    difference = (x - y).double().flatten(1)
    for norm, order in (("L1", 1.0), ("L2", 2.0), ("Linf", math.inf), ("L0", 0.0)):
        exact = torch.linalg.vector_norm(difference, ord=order, dim=1)
        assert torch.allclose(distance(x, y, norm).double(), exact, rtol=1e-12, atol=0)
