"""Shards of one run, and what is no shard."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from support.evidence_files import evidence_files

import flatguard
from flatguard.checks.finding import advice
from flatguard.errors import RunFolderError, UsageError
from flatguard.execution.executors import Processes
from flatguard.execution.shard import Shard
from flatguard.runs.layout import committed

Images = tuple[torch.Tensor, torch.Tensor]


def test_workers_and_shards_give_the_same_bytes(options: dict[str, Any], tmp_path: Path) -> None:
    wanted = evidence_files(flatguard.evaluate(**options, out=tmp_path / "whole").path)
    found = flatguard.evaluate(**options, out=tmp_path / "two", executor=Processes(2))
    assert evidence_files(found.path) == wanted
    parts = [
        flatguard.evaluate(**options, out=tmp_path / f"part{i}", shard=f"{i}/2") for i in (1, 2)
    ]
    assert [len(part.blocks) for part in parts] == [2, 1]
    assert not (parts[0].path / "verdict.json").exists()
    merged = flatguard.merge(parts, tmp_path / "merged")
    assert merged.complete
    assert evidence_files(flatguard.resume(merged, allow_code=True).path) == wanted


def test_a_part_that_is_judged_says_what_it_lacks(options: dict[str, Any], tmp_path: Path) -> None:
    part = flatguard.evaluate(**options, out=tmp_path / "part", shard="1/3")
    verdict = flatguard.audit(part)
    assert verdict.verdict == "inconclusive"
    assert "some images were not attacked yet" in verdict.sentence
    assert verdict.next[0] == "flatguard resume RUN --allow-code"
    assert advice(verdict.next[0], part.storage) == (
        f"flatguard resume {tmp_path / 'part'} --allow-code"
    )


def test_shards_of_other_runs_are_refused(options: dict[str, Any], tmp_path: Path) -> None:
    one = flatguard.evaluate(**options, out=tmp_path / "one", shard="1/2")
    other = flatguard.evaluate(**{**options, "seed": 1}, out=tmp_path / "other", shard="2/2")
    with pytest.raises(UsageError, match=r"not shards of one run: request\.seed"):
        flatguard.merge([one, other], tmp_path / "merged")
    shutil.move(str(committed(other.path)[1]), one.path / "evidence" / "blocks")
    with pytest.raises(RunFolderError, match="belongs to another run"):
        flatguard.resume(one.path, allow_code=True)
    assert not (tmp_path / "merged").exists()


def test_every_block_belongs_to_one_shard() -> None:
    shards = [Shard.parse(f"{number}/3") for number in (1, 2, 3)]
    assert [[shard.has(block) for block in range(4)] for shard in shards] == [
        [True, False, False, True],
        [False, True, False, False],
        [False, False, True, False],
    ]


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "a/b", "-1/2"])
def test_what_is_no_shard(text: str) -> None:
    with pytest.raises(UsageError, match="--shard: expected I/N"):
        Shard.parse(text)
