"""An entry point computes as in a new process, and the caller finds everything again."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch

from flatguard.environment.caller import own_process
from flatguard.environment.torch_state import OWN, TorchState


def drawn() -> tuple[float, float, float]:
    """One number from each global generator."""
    return torch.rand(()).item(), float(np.random.random()), random.random()


def seed_all(seed: int) -> None:
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)


@pytest.fixture(autouse=True)
def generators() -> Any:
    """The other tests find the generators where they were."""
    places = torch.get_rng_state(), np.random.get_state(), random.getstate()
    yield
    torch.set_rng_state(places[0])
    np.random.set_state(places[1])
    random.setstate(places[2])


def test_settings_are_those_of_a_new_process() -> None:
    with torch.no_grad(), torch.autocast("cpu"), np.errstate(all="raise"):
        before = TorchState.now()
        with own_process():
            assert TorchState.now() == OWN
            torch.set_default_dtype(torch.float64)
            np.seterr(all="ignore")
        assert TorchState.now() == before
    with torch.inference_mode(), own_process():
        assert not torch.is_inference_mode_enabled()
        assert not torch.ones(1).is_inference()


def test_what_is_drawn_does_not_depend_on_the_caller() -> None:
    found = set()
    for seed in (1, 2):
        seed_all(seed)
        with own_process():
            found.add(drawn())
    assert len(found) == 1


def test_the_caller_draws_on_as_before() -> None:
    seed_all(3)
    expected = drawn(), drawn()
    seed_all(3)
    first = drawn()
    with own_process():
        drawn()
        seed_all(9)
    assert (first, drawn()) == expected


def test_all_is_restored_after_an_error_and_as_a_decorator() -> None:
    @own_process()
    def fails() -> None:
        seed_all(5)
        torch.set_grad_enabled(False)
        raise KeyboardInterrupt

    seed_all(4)
    expected = drawn()
    seed_all(4)
    for _ in range(2):  # a decorator opens a new context for each call
        with pytest.raises(KeyboardInterrupt):
            fails()
        assert torch.is_grad_enabled()
    assert drawn() == expected


def test_nested_entry_points_draw_alike() -> None:
    """An entry point that calls another is no other caller."""
    with own_process():
        alone = drawn()
    with own_process():
        drawn()
        with own_process():
            assert drawn() == alone
