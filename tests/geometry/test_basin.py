"""Basins on paths whose basins are known, and Lemma 10 where it holds and where it does not."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from flatguard.geometry.basin import (
    Visited,
    basins,
    epsilon_star,
    least_rise_of_flip,
    rise_that_flips,
    robust_within,
)
from flatguard.geometry.decision import cross_entropy

F64 = torch.float64


def straight(rises: list[list[float]], wrong: list[list[bool]] | None = None) -> Visited:
    """Paths whose points are 0, 1, 2, ... away."""
    rise = np.array(rises).T
    distance = np.repeat(np.arange(len(rise), dtype=float)[:, None], rise.shape[1], axis=1)
    flips = np.zeros(rise.shape, bool) if wrong is None else np.array(wrong).T
    return Visited.of_paths(distance, rise, flips)


def test_width_and_take_off() -> None:
    path = straight([[0, 0.005, 0.02, 9], [0, 0, 0, 0.01], [0, 1, 0, 0]])
    found = basins(path, 0.01)
    assert found.width.tolist() == [2.0, 3.0, 1.0]
    assert found.left.tolist() == [True, False, True]
    assert found.step.tolist() == [2, -1, 1]
    assert found.ranked().argsort().tolist() == [2, 0, 1]


def test_the_nearest_point_outside_counts_in_whatever_order() -> None:
    visited = Visited(
        np.array([4, 4, 4]), np.array([3.0, 1.0, 2.0]), np.array([1.0, 1.0, 0.0]),
        np.array([True, True, False]),
    )  # fmt: skip
    found = basins(visited, 0.5)
    assert (found.width[0], found.step[0], found.sample[0]) == (1.0, 0, 4)


def test_what_was_not_measured_is_not_inside_or_outside() -> None:
    nan = math.nan
    visited = Visited(
        np.zeros(3, int), np.array([0.0, 1.0, nan]), np.array([0.0, nan, 9.0]), np.zeros(3, bool)
    )
    found = basins(visited)
    assert (found.width[0], bool(found.left[0])) == (0.0, False)
    with pytest.raises(ValueError, match="sorted"):
        Visited(np.array([1, 0]), np.zeros(2), np.zeros(2), np.zeros(2, bool))


@given(st.lists(st.lists(st.floats(-1, 3), min_size=4, max_size=4), min_size=1, max_size=6))
def test_the_width_is_where_robustness_ends(rises: list[list[float]]) -> None:
    """Definition 5 and the basin are one thing: robust within every smaller δ, at its own not."""
    path, epsilon = straight(rises), 0.5
    found = basins(path, epsilon)
    for index, (width, left) in enumerate(zip(found.width, found.left, strict=True)):
        if left:
            assert not robust_within(path, float(width), epsilon)[index]
            assert robust_within(path, float(width) - 0.5, epsilon)[index]
        else:
            assert robust_within(path, float("inf"), epsilon)[index]


@given(st.lists(st.lists(st.floats(-1, 3), min_size=4, max_size=4), min_size=1, max_size=6))
def test_below_epsilon_star_no_flip_goes_unseen(rises: list[list[float]]) -> None:
    flips = [[rise > 1 for rise in row] for row in rises]
    path = straight(rises, flips)
    star = epsilon_star(path, 2.0)
    within = [any(row[:3]) for row in flips]
    if star is None:
        assert not any(within)
    else:
        robust = robust_within(path, 2.0, star - 1e-9)
        assert not any(robust[i] for i, flipped in enumerate(within) if flipped)


logits = st.lists(st.floats(-8, 8), min_size=3, max_size=3)


@given(logits, logits, st.integers(0, 2))
def test_what_holds_of_lemma_10(clean: list[float], moved: list[float], label: int) -> None:
    z, y = torch.tensor([clean, moved], dtype=F64), torch.tensor([label, label])
    loss = cross_entropy(z, y).numpy()
    rise, flipped = loss[1] - loss[0], max(moved) > moved[label]
    if flipped:
        assert rise >= least_rise_of_flip(loss[:1])[0] - 1e-12
    if rise > rise_that_flips(3) + 1e-12:
        assert flipped


def test_what_does_not_hold_of_lemma_10() -> None:
    """Three classes: right with loss 1.08, then wrong with a smaller loss, below log 3 too."""
    p = torch.tensor([[0.34, 0.33, 0.33], [0.4, 0.6, 1e-9]], dtype=F64)
    loss = cross_entropy(p.log(), torch.tensor([0, 0]))
    assert p.argmax(1).tolist() == [0, 1]
    assert loss[1] < loss[0]
    assert loss[1] < math.log(3)
