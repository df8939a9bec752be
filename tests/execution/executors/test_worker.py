"""A worker loads a run once, and another run where it is given one."""

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

import flatguard
from flatguard.errors import UsageError
from flatguard.execution.compute_budget import ComputeBudget
from flatguard.execution.executors import Work, worker
from flatguard.execution.executors.executor import AttackBlock, Crew
from flatguard.execution.executors.worker import WorkerInput, carry_out, sendable
from flatguard.execution.origin import torch_threads
from flatguard.execution.progress import Silent
from flatguard.execution.reopening import reopen
from flatguard.request import Limits
from flatguard.runs.run import Run, load_run


def input_of(run: Run) -> WorkerInput:
    work = Work(
        reopen(run), run, (), 0, lambda plan, failures: None, Silent(), ComputeBudget(Limits())
    )
    return WorkerInput.of(Crew.of(work))


def test_a_run_is_loaded_once(options: dict[str, Any], tmp_path: Path) -> None:
    first = flatguard.evaluate(**options, shard="4/4", out=tmp_path / "first")
    second = flatguard.evaluate(**options, shard="4/4", out=tmp_path / "second")
    loaded = []
    with torch_threads(torch.get_num_threads()):
        for run, block in ((first, 0), (first, 1), (second, 0)):
            plan = run.manifest.blocks[block]
            assert carry_out(input_of(run), AttackBlock(plan, 0)).failures == ()
            assert torch.get_num_threads() == 1  # as the manifest says
            loaded.append(worker._loaded)
    assert loaded[0] is loaded[1] is not loaded[2]
    assert [len(load_run(run.path).blocks) for run in (first, second)] == [2, 1]


def test_what_cannot_be_pickled_is_advice() -> None:
    with pytest.raises(UsageError, match="cannot be sent to other processes"), sendable():
        pickle.dumps(lambda: None)
