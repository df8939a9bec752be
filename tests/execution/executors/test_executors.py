"""The executor that the command line names."""

import pytest

from flatguard.errors import UsageError
from flatguard.execution.executors import InProcess, Processes, Ray, choose


def test_names_and_their_options() -> None:
    assert isinstance(choose("processes", None, None), InProcess)
    assert isinstance(choose("processes", 1, None), InProcess)
    assert choose("processes", 3, None) == Processes(3)
    assert choose("ray", None, "here:1") == Ray("here:1")


@pytest.mark.parametrize(
    ("name", "workers", "address", "expected"),
    [
        ("processes", 0, None, "--workers: expected a number from 1 on, got 0"),
        ("processes", -1, None, "--workers: expected a number from 1 on, got -1"),
        ("processes", 2, "here:1", "--address is for --executor ray"),
        ("ray", 2, None, "--workers is for processes"),
        ("slurm", None, None, "--executor: expected one of processes, ray, got 'slurm'"),
    ],
)
def test_options_that_do_not_fit(
    name: str, workers: int | None, address: str | None, expected: str
) -> None:
    with pytest.raises(UsageError, match=expected):
        choose(name, workers, address)
