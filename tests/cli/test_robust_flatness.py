"""`flatguard geometry robust-flatness`; its numbers are in tests/studies/test_stutz.py."""

import pytest


@pytest.mark.parametrize(
    ("option", "value"),
    [("--directions", "0"), ("--worst-restarts", "-1"), ("--steps", "0"), ("--restarts", "0")],
)
def test_an_option_out_of_range_is_one_line(cli, option: str, value: str) -> None:
    result = cli("geometry", "robust-flatness", "none.pt", "--out", "runs", option, value)
    assert (result.code, result.err.count("\n")) == (2, 1)
    assert f"{option}: Input should be greater than or equal to" in result.err
