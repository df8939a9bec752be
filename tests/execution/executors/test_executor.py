"""A block that is committed is not attacked again."""

from pathlib import Path

import torch
from support.architectures import tiny
from support.failing import PGD, Interrupts

import flatguard
from flatguard.execution.compute_budget import ComputeBudget
from flatguard.execution.executors.executor import attack_unless_committed
from flatguard.execution.origin import origin_of
from flatguard.execution.reopening import reopen
from flatguard.request import Limits


def test_only_a_missing_block_is_attacked(
    tiny_data: tuple[torch.Tensor, torch.Tensor], tmp_path: Path
) -> None:
    model = tiny().eval()
    run = flatguard.evaluate(
        model, **PGD, data=tiny_data, batch_size=6, shard="1/2", out=tmp_path / "run"
    )
    context, counter = reopen(run, origin_of(model, tiny_data)), Interrupts()
    for plan, rows in zip(run.manifest.blocks, (0, 18), strict=True):
        before = counter.rows
        failures = attack_unless_committed(context, run, plan, 0, counter, ComputeBudget(Limits()))
        assert failures == ()
        assert counter.rows - before == rows  # three steps of six images
    assert flatguard.load_run(tmp_path / "run").complete
