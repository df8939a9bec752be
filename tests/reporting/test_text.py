import pytest

from flatguard.reporting.text import MINUS, between, counted, number, percent


def test_shares_are_percentages_with_one_decimal() -> None:
    assert percent(0.853) == "85.3%"
    assert percent(-0.05) == f"{MINUS}5.0%"
    assert between((0.734, 0.929)) == "73.4% to 92.9%"


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "not measured"), (float("nan"), "not measured"), (-1.23456, f"{MINUS}1.235"), (0, "0")],
)
def test_a_missing_number_is_not_measured(value: float | None, text: str) -> None:
    assert number(value) == text


def test_counts_have_the_right_form() -> None:
    assert [counted(n, "sample") for n in (0, 1, 2000)] == [
        "0 samples", "1 sample", "2,000 samples",
    ]  # fmt: skip
