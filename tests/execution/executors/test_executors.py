"""The executor that the command line names."""

import pytest
import torch

from flatguard.errors import (
    UsageError,
)
from flatguard.execution.executors import choose

Images = tuple[torch.Tensor, torch.Tensor]


@pytest.mark.parametrize("workers", [0, -1])
def test_no_workers(workers: int) -> None:
    with pytest.raises(UsageError, match=f"--workers: expected a number from 1 on, got {workers}"):
        choose("processes", workers, None)
