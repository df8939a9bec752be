"""`flatguard geometry basin`."""

import json
from pathlib import Path

import pytest
from support.reports import judged


def test_numbers_for_a_script_and_for_a_person(tmp_path: Path, cli) -> None:
    judged(tmp_path / "run")
    facts = json.loads(cli("geometry", "basin", "run", "--json").out)
    assert facts["delta"] == pytest.approx(8 / 255)
    assert facts["epsilon"] == 0.01
    lines = cli("geometry", "basin", "run").out.splitlines()
    assert lines[0].startswith("left (0.03137, 0.01)-robust")
    assert f"{facts['left_robust']:.1%} of {facts['samples']}" in lines[0]


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("--epsilon", "-1", "--epsilon: expected a number of at least 0, got -1"),
        ("--epsilon", "inf", "--epsilon: expected a number of at least 0, got inf"),
        ("--delta", "0", "--delta: expected a positive number"),
    ],
)
def test_a_wrong_number_is_one_line(
    tmp_path: Path, cli, option: str, value: str, expected: str
) -> None:
    judged(tmp_path / "run")
    result = cli("geometry", "basin", "run", option, value)
    assert (result.code, result.err.count("\n")) == (2, 1)
    assert expected in result.err
