"""What a run is done with; limits need an executor that counts."""

import pytest

from flatguard.errors import UsageError
from flatguard.execution.compute_budget import ComputeBudget
from flatguard.execution.executors import InProcess, Processes
from flatguard.execution.resources import Resources
from flatguard.request import Limits


def test_defaults_are_this_process_without_limits() -> None:
    resources = Resources()
    assert isinstance(resources.executor, InProcess)
    assert resources.compute_budget.limits == Limits()
    assert resources.shard is resources.max_failures is None


@pytest.mark.parametrize("limits", [Limits(max_forwards=100), Limits(max_minutes=1.0)])
def test_limits_are_counted_in_one_process(limits: Limits) -> None:
    assert Resources(compute_budget=ComputeBudget(limits)).compute_budget.limits == limits
    with pytest.raises(UsageError, match="counted in one process"):
        Resources(Processes(2), compute_budget=ComputeBudget(limits))
