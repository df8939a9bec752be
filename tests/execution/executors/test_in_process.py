"""Blocks that another process has begun come last."""

from pathlib import Path
from typing import Any

import pytest
import torch
from support.architectures import tiny
from support.failing import PGD

import flatguard
from flatguard.execution.progress import Silent
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


@pytest.mark.parametrize(
    ("begun", "order"), [((), [0, 1, 2]), ((0,), [1, 2, 0]), ((0, 1, 2), [2, 1, 0])]
)
def test_begun_blocks_come_last_and_backwards(
    begun: tuple[int, ...], order: list[int], tiny_data: Images, tmp_path: Path
) -> None:
    class Order(Silent):
        def __init__(self) -> None:
            self.blocks: list[int] = []

        def advanced(self, samples: int) -> None:
            known = committed(tmp_path / "run")
            self.blocks.extend(index for index in known if index not in self.blocks)

    model, watcher = tiny().eval(), Order()
    run = flatguard.evaluate(
        model, **PGD, data=tiny_data, batch_size=4, checks="none", shard="4/4",
        out=tmp_path / "run",
    )  # fmt: skip
    for index in begun:
        (run.path / STAGING / f"{index:05d}.elsewhere.1").mkdir(parents=True)
    flatguard.resume(run, model=model, data=tiny_data, progress=watcher)
    assert watcher.blocks == order
