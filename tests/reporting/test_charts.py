"""Line charts: every value is drawn, tabulated and readable."""

import math
from itertools import pairwise
from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st

from flatguard.reporting.charts import Axis, Band, Series, line_chart, spread
from flatguard.reporting.figure import FigureText

TEXT = FigureText("name", "title", "description", "caption")


def test_figures_are_well_formed_and_hold_every_value() -> None:
    one = Series("a<b", "fooled", [0, 1, 2], [1.0, math.nan, 3.0])
    figure = line_chart(TEXT, Axis("x"), Axis("y"), [one])
    drawn = ElementTree.fromstring(str(figure.image))
    assert drawn.attrib["role"] == "img"
    assert figure.table is not None
    assert [row[1] for row in figure.table.rows] == ["1", "not measured", "3"]
    assert [reading.head for reading in figure.readings] == ["x 0", "x 1", "x 2"]
    assert "style=" not in str(figure.image)


def test_series_over_different_x_share_one_table() -> None:
    first = Series("a", "clean", [0, 1], [0.5, 0.25], kind="points", interval=[(0, 1), (0.2, 0.3)])
    second = Series("b", "fooled", [1, 2], [1.0, 0.0], kind="steps", notes=["n = 3", "n = 4"])
    figure = line_chart(TEXT, Axis("x"), Axis("y", is_share=True), [first, second])
    assert figure.table is not None
    assert figure.table.rows == (
        ("0", "50.0% (0.0% to 100.0%)", ""),
        ("1", "25.0% (20.0% to 30.0%)", "100.0%, n = 3"),
        ("2", "", "0.0%, n = 4"),
    )
    assert figure.readings[1].lines == ("a: 25.0% (20.0% to 30.0%)", "b: 100.0%, n = 3")
    image = str(figure.image)
    assert image.count('class="whisker clean"') == image.count('class="dot clean"') == 2
    assert image.count('class="line fooled"') == 1


def test_bands_lie_behind_their_line_and_within_the_figure() -> None:
    one = Series("a", "ink", [0, 1], [0.0, 0.0], bands=(Band([-9, -9], [9, 9], strong=True),))
    image = str(line_chart(TEXT, Axis("x"), Axis("y"), [one]).image)
    assert image.index('class="band strong ink"') < image.index('class="line ink"')
    assert ">−5<" in image.replace("\N{MINUS SIGN}", "−")


@given(st.floats(1e-4, 1e6))
def test_no_tick_on_the_right_is_cut_off(end: float) -> None:
    chart = line_chart(TEXT, Axis("x"), Axis("y"), [Series("a", "ink", [0.0, end], [0.0, 1.0])])
    drawn = ElementTree.fromstring(str(chart.image))
    width = float(drawn.attrib["viewBox"].split()[2])
    labels = [t for t in drawn.iter() if t.tag.endswith("text") and "tick" in t.attrib["class"]]
    assert len(labels) > 3
    for label in labels:
        assert label.text is not None
        right = {"end": 0.0, "middle": 0.5}[label.attrib["class"].split()[-1]]
        assert float(label.attrib["x"]) + right * 6.6 * len(label.text) <= width


@given(st.integers(1, 200))
def test_a_whole_axis_has_ticks_at_whole_numbers_only(last: int) -> None:
    series = Series("a", "ink", [0, last], [0.0, 1.0])
    chart = line_chart(TEXT, Axis("step", is_whole=True), Axis("y"), [series])
    drawn = ElementTree.fromstring(str(chart.image))
    labels = [t.text for t in drawn.iter() if t.attrib.get("class") == "tick middle"]
    assert len(labels) >= 2
    assert all(label is not None and label.isdecimal() for label in labels)


def test_a_lines_label_stands_at_its_end_and_is_hidden_with_it() -> None:
    first = Series("a", "series1", [0, 1], [0.0, 1.0], label="first")
    second = Series("b", "series2", [0, 1], [0.5, 1.0], label="second")
    third = Series("c", "series3", [0, 1], [0.5, math.nan], label="third")
    drawn = ElementTree.fromstring(
        str(line_chart(TEXT, Axis("x"), Axis("y"), [first, second, third]).image)
    )
    found = {t.text: t for t in drawn.iter() if "data-series" in t.attrib and t.text}
    assert set(found) == {"first", "second"}
    assert [found[name].attrib["data-series"] for name in ("first", "second")] == ["0", "1"]
    ends = [float(found[name].attrib["y"]) for name in ("first", "second")]
    assert abs(ends[0] - ends[1]) >= 11


@given(st.lists(st.floats(0, 100), max_size=30))
def test_spread_values_are_apart_and_inside(values: list[float]) -> None:
    found = spread(values, 5.0, 0.0, 100.0)
    gap = min(5.0, 100.0 / max(len(values) - 1, 1))
    ordered = sorted(found)
    assert all(b - a >= gap - 1e-6 for a, b in pairwise(ordered))
    assert all(-1e-6 <= value <= 100 + 1e-6 for value in found)
    order = sorted(range(len(values)), key=values.__getitem__)
    assert [found[index] for index in order] == ordered
