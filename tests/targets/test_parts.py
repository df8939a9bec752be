"""All that a model holds is found: registered parts, and those in plain attributes."""

import functools
import random
import types
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from flatguard.targets.parts import modules_of, parts_of, plain_attributes, tensors_of

LAYER = nn.Linear(2, 2)
TENSOR = torch.arange(3.0)


def closed_over(held: Any) -> Callable[[], Any]:
    return lambda: held


def with_default(held: Any) -> Callable[[], Any]:
    def function(given: Any = held) -> Any:
        return given

    return function


class Bound:
    def method(self) -> None: ...


PLACES: dict[str, tuple[Callable[[Any], Any], str]] = {
    "an attribute": (lambda held: held, "aside"),
    "a list": (lambda held: [1, held], "aside[1]"),
    "a tuple": (lambda held: (held,), "aside[0]"),
    "a queue": (lambda held: deque([held]), "aside[0]"),
    "a dict": (lambda held: {"a": held}, "aside['a']"),
    "an ordered dict": (lambda held: OrderedDict(a=held), "aside['a']"),
    "a set": (lambda held: {held}, "aside{}"),
    "a nest": (lambda held: {"a": [(held,)]}, "aside['a'][0][0]"),
    "a closure": (closed_over, "aside.held"),
    "a default": (with_default, "aside.__defaults__[0]"),
    "a partial": (lambda held: functools.partial(print, held), "aside.args[0]"),
    "a keyword of a partial": (
        lambda held: functools.partial(print, end=held), "aside.keywords['end']"),
    "a method": (lambda held: types.MethodType(lambda self: None, held), "aside.__self__"),
}  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
def test_a_plain_place_is_searched(place: str) -> None:
    make, path = PLACES[place]
    for held in (LAYER, TENSOR):
        model = nn.Sequential(nn.Linear(2, 2))
        model.aside = make(held)  # type: ignore[assignment]
        found = {part.path: part for part in parts_of(model)}
        assert found[path].value is held
        assert found[path].owner is model


def test_what_a_part_in_a_plain_place_holds_is_found() -> None:
    model = nn.Sequential(nn.ReLU())
    model.aside = [nn.Sequential(nn.BatchNorm2d(2))]  # type: ignore[assignment]
    paths = [part.path for part in parts_of(model)]
    assert paths[0] == ""
    assert "aside[0].0.running_mean" in paths
    assert "aside[0].0.weight" in paths


def test_each_object_comes_once_and_the_order_is_fixed() -> None:
    model = nn.Sequential(LAYER, nn.Sequential(LAYER))
    model.again = [LAYER.weight, LAYER, model]  # type: ignore[assignment]
    first, second = list(parts_of(model)), list(parts_of(model))
    assert [part.path for part in first] == [part.path for part in second]
    assert sum(part.value is LAYER.weight for part in first) == 1
    assert sum(part.value is model for part in first) == 1
    assert modules_of(model) == [model, LAYER, model[1]]
    assert len(tensors_of(model)) == 2


def test_plain_values_come_each_time() -> None:
    model = nn.ReLU()
    model.scales = [1.5, 1.5, None, "a"]  # type: ignore[assignment]
    found = {part.path: part.value for part in parts_of(model)}
    assert found["scales[0]"] == found["scales[1]"] == 1.5
    assert found["scales[2]"] is None


def test_generators_and_arrays_are_parts() -> None:
    model = nn.ReLU()
    held = [random.Random(0), np.random.default_rng(0), torch.Generator(), np.zeros(3)]
    model.held = held  # type: ignore[assignment]
    values = [part.value for part in parts_of(model)]
    assert all(any(value is each for value in values) for each in held)


def test_an_object_of_another_class_is_given_and_not_searched() -> None:
    model = nn.ReLU()
    model.other = Bound()  # type: ignore[assignment]
    model.other.layer = LAYER  # type: ignore[union-attr]
    values = [part.value for part in parts_of(model)]
    assert model.other in values
    assert LAYER not in values


def test_torchs_own_attributes_are_no_plain_ones() -> None:
    model = nn.Linear(2, 2)
    model.register_forward_hook(lambda *_: None)
    assert set(plain_attributes(model)) == {"in_features", "out_features"}


def test_a_script_has_registered_parts_only() -> None:
    script = torch.jit.trace(nn.Sequential(nn.Linear(2, 2)), torch.zeros(1, 2))
    assert plain_attributes(script) == {}
    assert len(tensors_of(script)) == 2


def test_an_empty_cell_is_left_out() -> None:
    def outer() -> Callable[[], Any]:
        def inner() -> Any:
            return late

        if torch.zeros(()):
            late = 1
        return inner

    model = nn.ReLU()
    model.call = outer()  # type: ignore[assignment]
    assert "call" in [part.path for part in parts_of(model)]
