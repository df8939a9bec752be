import json

from markupsafe import Markup

from flatguard.reporting.figure import Figure, FigureText, Reading, short_table


def test_a_short_table_keeps_the_first_and_the_last_row() -> None:
    table = short_table(("x",), [[str(i)] for i in range(1000)])
    assert len(table.rows) == 60
    assert (table.rows[0], table.rows[-1]) == (("0",), ("999",))
    assert short_table(("x",), []).rows == ()
    assert short_table(("x",), [["1"], ["2"]]).rows == (("1",), ("2",))


def test_readings_are_json_with_visible_text() -> None:
    reading = Reading(1.26, "x\u202e 1", ("a: 2",))
    figure = Figure(FigureText("n", "t", "a"), Markup(), readings=(reading,))
    assert json.loads(figure.readings_json) == [[1.3, "x\\u202e 1", ["a: 2"]]]
