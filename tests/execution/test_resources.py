"""What a run is done with."""

from typing import Any

import pytest
import torch

import flatguard
from flatguard.errors import (
    FlatguardError,
)
from flatguard.execution.executors import Processes

Images = tuple[torch.Tensor, torch.Tensor]


def test_budgets_are_counted_in_one_process(options: dict[str, Any]) -> None:
    with pytest.raises(FlatguardError, match="counted in one process"):
        flatguard.evaluate(**options, max_forwards=100, executor=Processes(2))
