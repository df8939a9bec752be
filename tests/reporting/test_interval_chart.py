from flatguard.reporting.figure import FigureText
from flatguard.reporting.interval_chart import (
    IntervalRow,
    interval_chart,
    interval_mark,
    percent_grid,
)
from flatguard.reporting.svg import Scale

SCALE = Scale(0.0, 1.0, 0.0, 100.0)


def test_each_row_has_its_share_interval_and_note() -> None:
    rows = [
        IntervalRow("a", "survived", 0.5, (0.25, 0.75), "2 of 4"),
        IntervalRow("a name that is far too long for its margin", "fooled", 0.0, (0.0, 0.6)),
    ]
    figure = interval_chart(FigureText("n", "t", "d"), "accuracy", rows)
    assert figure.table is not None
    assert figure.table.rows[0] == ("a", "50.0%", "25.0% to 75.0%", "2 of 4")
    image = str(figure.image)
    assert image.count('class="whisker') == 2
    assert "a name tha… its margin" in image


def test_a_mark_is_a_disc_on_its_interval() -> None:
    whisker, dot = interval_mark(SCALE, 7.0, 1.5, (0.25, 0.75), "clean", 2.0)
    assert 'd="M25 7L75 7"' in whisker
    assert 'd="M98 7a2 2' in dot, "a value beyond 100% is drawn at the end"
    assert len(list(interval_mark(SCALE, 7.0, 0.5, None, "clean"))) == 1


def test_the_grid_is_labelled_every_quarter() -> None:
    labels = [part for part in percent_grid(SCALE, 0, 10, 20) if "<text" in part]
    assert [label.striptags() for label in labels] == ["0%", "25%", "50%", "75%", "100%"]
