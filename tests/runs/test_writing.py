"""Making a run folder, and writing its blocks."""

import os
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from support.run_folders import RUN

import flatguard
from flatguard.errors import RunFolderError
from flatguard.recording.trajectory import to_frame
from flatguard.runs import writing
from flatguard.runs.facts import BlockFacts, BlockFailure
from flatguard.runs.layout import committed
from flatguard.runs.owners import ending
from flatguard.runs.run import Run, load_run
from flatguard.runs.storage import open_storage


def test_a_folder_that_exists_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    with pytest.raises(RunFolderError, match="exists already; name another folder with --out"):
        writing.check_new(open_storage(tmp_path / "mine"))


def test_a_folder_without_permission() -> None:
    if not Path("/proc/self").exists():
        pytest.skip("needs Linux's /proc, where nobody may write, not even root")
    with pytest.raises(RunFolderError, match="cannot write to /proc"):
        writing.check_new(open_storage(Path("/proc/run")))


def test_a_parent_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match=r"cannot write to .*; name another folder with --out"):
        writing.check_new(open_storage(tmp_path / "file" / "run"))


def facts(run: Run) -> BlockFacts:
    return run.blocks[0].model_copy(update={"files": {}})


def test_whoever_comes_second_with_a_block_changes_nothing(
    attacked: Run, tiny_data: tuple[torch.Tensor, torch.Tensor]
) -> None:
    before = sorted(attacked.path.rglob("*"))
    with writing.BlockWriter(attacked.path, 0) as writer:  # block 0 is there already
        writer.append(pd.DataFrame({"b": [1]}))
        writer.commit(pd.DataFrame({"a": [1]}), tiny_data[0], tiny_data[0], facts(attacked), {})
    assert sorted(attacked.path.rglob("*")) == before
    attacked.verify()


def test_a_block_that_is_not_committed_leaves_nothing(attacked: Run) -> None:
    before = sorted(attacked.path.rglob("*"))
    with writing.BlockWriter(attacked.path, 7) as writer:
        writer.append(pd.DataFrame({"b": [1]}))  # and then the attack fails
    assert sorted(attacked.path.rglob("*")) == before


def test_a_failed_block_replaces_an_earlier_failure(attacked: Run) -> None:
    whole = facts(attacked).model_dump(exclude={"warnings", "files", "failures", "run"})
    (attacked.path / "aside").mkdir()
    committed(attacked.path)[1].rename(attacked.path / "aside" / "00001")
    for calls in (4, 2):
        with writing.BlockWriter(attacked.path, 1) as writer:
            writer.append(to_frame([]).assign(call=[]))
            failure = BlockFailure(**whole | {"calls": calls}, error="out of luck")
            writer.keep_failure(failure.model_copy(update={"plan": attacked.manifest.blocks[1]}))
    again = flatguard.load_run(attacked.path)
    assert [(f.plan.index, f.calls) for f in again.failures] == [(1, 2)]
    assert len(again.failed_trajectory(1)) == 0
    folder = attacked.path / "evidence" / "failed"
    assert [f.name for f in folder.iterdir()] == ["00001"]
    (folder / "00001" / "trajectory.parquet").write_bytes(b"PAR1")
    with pytest.raises(RunFolderError, match="is damaged"):
        again.failed_trajectory(1)


def test_the_trajectory_arrives_in_row_groups(attacked: Run, tiny_data: Any) -> None:

    with writing.BlockWriter(attacked.path, 3) as writer:
        for call in range(4):
            writer.append(pd.DataFrame({"call": [call] * 5}))
        writer.commit(pd.DataFrame({"a": [1]}), tiny_data[0], tiny_data[0], facts(attacked), {})
    file = committed(attacked.path)[3] / "trajectory.parquet"
    assert pq.ParquetFile(file).num_row_groups == 4
    assert pd.read_parquet(file)["call"].tolist() == [c for c in range(4) for _ in range(5)]


@pytest.mark.parametrize("name", [".staging", "evidence/failed"])
def test_nothing_is_written_or_removed_through_a_link(block: Path, name: str) -> None:
    """Not by what stages blocks and probes, nor by what sweeps up after the dead."""
    outside, gone = Path("elsewhere"), 2**22 + 1  # above every process number
    kept = [outside / f"00000{ending().rpartition('.')[0]}.{gone}", outside / "00000"]
    for folder in kept:
        folder.mkdir(parents=True)
    (RUN / name).symlink_to(outside.resolve())
    facts = load_run("run").blocks[0]
    failure = BlockFailure(
        error="", files={}, **facts.model_dump(exclude={"warnings", "failures", "run", "files"})
    )

    def fail() -> None:
        with writing.BlockWriter(RUN, 0) as writer:
            writer.keep_failure(failure)

    for work in (lambda: writing.sweep(RUN), fail):
        with pytest.raises(RunFolderError, match="is a link; a run folder holds plain files"):
            work()
    assert sorted(outside.iterdir()) == sorted(kept)


def test_a_link_where_a_file_will_be_written(run: Run) -> None:
    """What is written goes through no link that lay there already."""
    victim = Path("victim")
    victim.write_text("precious")
    for name in (f".verdict.json.{os.getpid()}", "summary.json", "report.html"):
        Path("run", name).unlink(missing_ok=True)
        Path("run", name).symlink_to(victim.resolve())
    flatguard.audit("run")
    assert victim.read_text() == "precious"
    assert not Path("run/report.html").is_symlink()
