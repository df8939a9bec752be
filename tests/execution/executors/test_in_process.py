"""Blocks that another process has begun come last."""

from pathlib import Path
from typing import Any

import torch

import flatguard
from flatguard.runs.layout import STAGING, committed
from flatguard.runs.publishing import stage

Images = tuple[torch.Tensor, torch.Tensor]


def test_somebody_elses_block_comes_last_and_the_dead_are_swept(
    options: dict[str, Any], tmp_path: Path
) -> None:
    run = flatguard.evaluate(**options, out=tmp_path / "run", shard="3/3")
    host = stage(run.path, "00000").name.split(".")[1]
    (run.path / STAGING / f"00000.{host}.999999999").mkdir(parents=True)
    (run.path / STAGING / "00000.elsewhere.1").mkdir()
    assert run.storage.is_begun(0)
    done = flatguard.resume(run, allow_code=True)
    order = sorted(done.blocks, key=lambda b: committed(run.path)[b.plan.index].stat().st_ctime_ns)
    assert [b.plan.index for b in order] == [2, 1, 0]
    assert [f.name for f in (run.path / STAGING).iterdir()] == ["00000.elsewhere.1"]
