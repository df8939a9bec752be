"""Scales, ticks and paths, with properties."""

import math
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flatguard.reporting.attempt_charts import Heap, MatrixRow, histogram, matrix
from flatguard.reporting.charts import Axis, Series, Words, line_chart
from flatguard.reporting.svg import MINUS, path_of, spanning, tick_label, ticks

NUMBERS = st.floats(-1e6, 1e6)
WORDS = Words("name", "title", "words", "caption")


@given(st.lists(NUMBERS, min_size=1, max_size=9))
def test_a_scale_holds_its_values(values: list[float]) -> None:
    scale = spanning(values, 50.0, 450.0)
    assert all(50.0 <= scale(value) <= 450.0 for value in values)


@given(NUMBERS, st.floats(1e-3, 1e6))
def test_ticks_lie_within_and_are_even(low: float, span: float) -> None:
    found = ticks(low, low + span)
    assert 2 <= len(found) <= 12
    assert all(low - 1e-6 * span <= tick <= low + span * (1 + 1e-6) for tick in found)
    steps = np.diff(found)
    assert np.allclose(steps, steps[0])


def test_a_line_breaks_where_nothing_was_measured() -> None:
    assert path_of([(0, 0), (1, 1), (2, math.nan), (3, 3)]) == "M0 0L1 1M3 3"


def test_figures_are_well_formed_and_hold_every_value() -> None:
    one = Series("a<b", "fell", [0, 1, 2], [1.0, math.nan, 3.0])
    figure = line_chart(WORDS, Axis("x"), Axis("y"), [one])
    drawn = ElementTree.fromstring(str(figure.picture))
    assert drawn.attrib["role"] == "img"
    assert figure.table is not None
    assert [row[1] for row in figure.table.rows] == ["1", "not measured", "3"]
    assert [reading.head for reading in figure.readings] == ["x 0", "x 1", "x 2"]
    assert "style=" not in str(figure.picture)


def test_a_histogram_counts_every_finite_value_once() -> None:
    values = np.array([1.0, 1.0, 2.0, np.nan, 5.0])
    figure = histogram(WORDS, Axis("x"), [Heap("a", "fell", values)])
    assert figure.table is not None
    assert sum(int(row[1]) for row in figure.table.rows) == 4


def test_a_matrix_tells_tried_from_not_tried() -> None:
    rows = [
        MatrixRow("one", np.array([1.0, 0.0, np.nan])),
        MatrixRow("other", np.array([np.nan, np.nan, np.nan])),
    ]
    figure = matrix(WORDS, "samples", rows)
    assert figure.table is not None
    assert figure.table.rows == (("one", "2", "1"), ("other", "0", "0"))
    assert str(figure.picture).count('class="cell') == 2


@pytest.mark.parametrize(
    ("value", "label"),
    [(0.0, "0"), (0.25, "0.25"), (-6000.0, "−6,000"), (-150_000.0, "−150k"), (1e6, "1,000k")],
)
def test_a_tick_fits_its_margin(value: float, label: str) -> None:
    assert tick_label(value) == label.replace("−", MINUS)


@given(st.floats(1e-4, 1e6))
def test_no_tick_on_the_right_is_cut_off(end: float) -> None:
    chart = line_chart(WORDS, Axis("x"), Axis("y"), [Series("a", "ink", [0.0, end], [0.0, 1.0])])
    drawn = ElementTree.fromstring(str(chart.picture))
    width = float(drawn.attrib["viewBox"].split()[2])
    labels = [t for t in drawn.iter() if t.tag.endswith("text") and "tick" in t.attrib["class"]]
    assert len(labels) > 3
    for label in labels:
        assert label.text is not None
        right = {"end": 0.0, "middle": 0.5}[label.attrib["class"].split()[-1]]
        assert float(label.attrib["x"]) + right * 6.6 * len(label.text) <= width
