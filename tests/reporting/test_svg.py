"""Scales, ticks and paths, with properties."""

import math
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flatguard.reporting.svg import (
    MINUS,
    area,
    disc,
    drawing,
    path,
    polyline,
    scale_for,
    steps,
    text,
    tick_label,
    ticks,
)

NUMBERS = st.floats(-1e6, 1e6)


@given(st.lists(NUMBERS, min_size=1, max_size=9))
def test_a_scale_holds_its_values(values: list[float]) -> None:
    scale = scale_for(values, 50.0, 450.0)
    assert all(50.0 <= scale(value) <= 450.0 for value in values)


@given(NUMBERS, st.floats(1e-3, 1e6))
def test_ticks_lie_within_and_are_even(low: float, span: float) -> None:
    found = ticks(low, low + span)
    assert 2 <= len(found) <= 12
    assert all(low - 1e-6 * span <= tick <= low + span * (1 + 1e-6) for tick in found)
    distances = np.diff(found)
    assert np.allclose(distances, distances[0])


def test_a_line_breaks_where_nothing_was_measured() -> None:
    assert polyline([(0, 0), (1, 1), (2, math.nan), (3, 3)]) == "M0 0L1 1M3 3"


def test_an_area_goes_back_along_its_lower_line() -> None:
    assert area([(0, 2), (1, 3)], [(0, 0), (1, 1)]) == "M0 2L1 3L1 1L0 0Z"
    assert area([], []) == ""


def test_a_disc_returns_to_its_start() -> None:
    assert disc(10, 5) == "M6 5a4 4 0 1 0 8 0a4 4 0 1 0 -8 0"


def test_steps_hold_each_value_until_the_next() -> None:
    assert steps([(0, 1), (2, 5)]) == [(0, 1), (2, 1), (2, 5)]


@pytest.mark.parametrize(
    ("value", "label"),
    [(0.0, "0"), (0.25, "0.25"), (-6000.0, "−6,000"), (-150_000.0, "−150k"), (1e6, "1,000k")],
)
def test_a_tick_fits_its_margin(value: float, label: str) -> None:
    assert tick_label(value) == label.replace("−", MINUS)


def test_text_is_escaped_and_made_visible() -> None:
    parts = [text(1, 2.25, "a<b\u202e", "tick"), path("M0 0", "line", 3)]
    drawn = ElementTree.fromstring(str(drawing(10, 20, 'say "x"', parts)))
    assert drawn.attrib == {"viewBox": "0 0 10 20", "role": "img", "aria-label": 'say "x"'}
    assert (drawn[0].text, drawn[0].attrib["y"]) == ("a<b\\u202e", "2.2")
    assert drawn[1].attrib["data-series"] == "3"
