"""Merging shards."""

import shutil
from pathlib import Path

import pytest
from support.run_folders import RUN

import flatguard
from benchmarks.fuzz.forging import block_folder
from benchmarks.synthetic import Size, make_run
from flatguard.errors import RunFolderError, UsageError
from flatguard.runs.merging import merge
from flatguard.runs.run import Run


def test_a_shard_gives_away_nothing_that_it_does_not_name(block: Path) -> None:
    """A link beside a block's files is not followed, and a block beside the plan is not copied."""
    Path("secret").write_text("precious")
    (block / "more").symlink_to(Path("secret").resolve())
    shutil.copytree(block, block.with_name("00007"), symlinks=True)
    merged = flatguard.merge(["run"], "merged")
    assert merged.complete
    assert "precious" not in {file.read_text("latin1") for file in merged.path.rglob("*/*.*")}
    assert not list(merged.path.rglob("more"))
    assert not (merged.path / "evidence/blocks/00007").exists()
    (block / "timing.json").unlink()
    (block / "timing.json").symlink_to(Path("secret").resolve())
    with pytest.raises(RunFolderError, match=r"timing\.json is a link"):
        flatguard.merge(["run"], "another")


def test_blocks_of_all_shards_are_merged_and_other_runs_are_refused(run: Run) -> None:
    for index, name in enumerate(("one", "two")):
        shutil.copytree(RUN, name)
        shutil.rmtree(block_folder(Path(name), 1 - index))
    assert merge(["one", "two", "one"], "merged").samples.equals(run.samples)
    make_run(Path("other"), Size(samples=4, steps=3, block=2, side=4))
    with pytest.raises(UsageError, match=r"are not shards of one run: .*attack_args\.steps"):
        merge(["one", "other"], "more")
    with pytest.raises(UsageError, match="expected run folders"):
        merge([], "nothing")
    assert not Path("more").exists()
