import numpy as np

from flatguard.reporting.charts import Axis, ReferenceLine
from flatguard.reporting.figure import FigureText
from flatguard.reporting.histogram import Distribution, histogram

TEXT = FigureText("name", "title", "description")


def test_a_histogram_counts_every_finite_value_once() -> None:
    values = np.array([1.0, 1.0, 2.0, np.nan, 5.0])
    other = Distribution("b", "clean", np.array([2.0]))
    figure = histogram(TEXT, Axis("x"), [Distribution("a", "fooled", values), other])
    assert figure.table is not None
    assert sum(int(row[1]) for row in figure.table.rows) == 4
    assert sum(int(row[2]) for row in figure.table.rows) == 1
    assert len(figure.readings) == 40
    assert figure.readings[0].lines == ("a: 2 samples", "b: 0 samples")


def test_a_threshold_outside_the_values_is_shown() -> None:
    values = Distribution("a", "clean", np.array([3.0, 3.0]))
    figure = histogram(TEXT, Axis("x"), [values], [ReferenceLine(9.0, "threshold")])
    assert figure.readings[-1].head.endswith("to 9")
    assert ">threshold</text>" in str(figure.image)
