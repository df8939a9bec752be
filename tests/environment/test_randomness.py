"""Seeding affects all three generators, and the caller's states are restored."""

import random

import numpy as np
import pytest
import torch

from flatguard.environment.randomness import preserved, seeded

CPU = torch.device("cpu")


def draw() -> tuple[float, float, float]:
    return torch.rand(1).item(), float(np.random.rand()), random.random()


def test_a_seed_sets_all_three_generators() -> None:
    drawn = []
    for seed in (1, 1, 2):
        with seeded(seed, CPU):
            drawn.append(draw())
    first, again, other = drawn
    assert first == again
    assert all(a != b for a, b in zip(first, other, strict=True))


def fail() -> None:
    draw()
    raise KeyError


@pytest.mark.parametrize("name", ["preserved", "seeded"])
def test_the_states_are_restored_after_an_error(name: str) -> None:
    with seeded(5, CPU):
        expected = [draw(), draw()]
    with seeded(5, CPU):
        found = [draw()]
        with pytest.raises(KeyError), preserved(CPU) if name == "preserved" else seeded(3, CPU):
            fail()
        found.append(draw())
    assert found == expected


def test_preserved_continues_the_callers_stream() -> None:
    with seeded(5, CPU):
        expected = draw()
    with seeded(5, CPU), preserved(CPU):
        assert draw() == expected
