"""What a run is done with."""

from flatguard.execution.executors import InProcess
from flatguard.execution.resources import Resources
from flatguard.request import Limits


def test_defaults_are_this_process_without_limits() -> None:
    resources = Resources()
    assert isinstance(resources.executor, InProcess)
    assert resources.compute_budget.limits == Limits()
    assert resources.shard is resources.max_failures is None
