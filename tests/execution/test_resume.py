"""A run that was interrupted and taken up again is the run that never was."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from support.architectures import tiny
from support.evidence_files import evidence_files
from support.listeners import Listener

import flatguard
from flatguard.checks.finding import advice
from flatguard.errors import FlatguardError, RunFolderError, UsageError
from flatguard.execution.executors import Processes, choose
from flatguard.runs.json_files import write_sealed
from flatguard.runs.layout import STAGING, committed
from flatguard.runs.publishing import stage

ARCH = f"{Path(__file__).parents[1] / 'support' / 'architectures.py'}:tiny"


@pytest.fixture
def asked(tiny_data: tuple[torch.Tensor, torch.Tensor], tmp_path: Path) -> dict[str, Any]:
    """A run of three blocks by names alone, with probes."""
    torch.manual_seed(0)
    save_file(tiny().state_dict(), tmp_path / "weights.safetensors")
    torch.save(tiny_data, tmp_path / "data.pt")
    return {
        "model": str(tmp_path / "weights.safetensors"), "attack": "apgd-ce", "norm": "Linf",
        "arch": ARCH, "data": str(tmp_path / "data.pt"), "eps": "2/255", "batch_size": 5,
        "attack_args": {"n_iter": 4}, "threads": 1, "checks": "fast",
    }  # fmt: skip


def without(run: Path, copy: Path, *names: str) -> Path:
    """A copy that lacks what these patterns match."""
    shutil.copytree(run, copy)
    for name in names:
        for path in copy.glob(name):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    return copy


def test_what_is_missing_is_done_and_nothing_twice(asked: dict[str, Any], tmp_path: Path) -> None:
    whole = flatguard.evaluate(**asked, out=tmp_path / "whole")
    wanted = evidence_files(whole.path)
    for number, missing in enumerate(
        [("evidence/blocks/00001-*", "evidence/probes", "*.json"), ("evidence/probes/twins",), ()]
    ):
        left = without(whole.path, tmp_path / str(number), *missing)
        before = {f: f.stat().st_mtime_ns for f in left.glob("evidence/*/*/*")}
        again = flatguard.resume(left, allow_code=True)
        assert evidence_files(again.path) == wanted
        assert all(f.stat().st_mtime_ns == stamp for f, stamp in before.items())
        assert again.summary["verdict"] == whole.summary["verdict"]
        assert again.summary["sentence"] == whole.summary["sentence"]


def test_workers_and_shards_give_the_same_bytes(asked: dict[str, Any], tmp_path: Path) -> None:
    wanted = evidence_files(flatguard.evaluate(**asked, out=tmp_path / "whole").path)
    found = flatguard.evaluate(**asked, out=tmp_path / "two", executor=Processes(2))
    assert evidence_files(found.path) == wanted
    parts = [flatguard.evaluate(**asked, out=tmp_path / f"part{i}", shard=f"{i}/2") for i in (1, 2)]
    assert [len(part.blocks) for part in parts] == [2, 1]
    assert not (parts[0].path / "verdict.json").exists()
    merged = flatguard.merge(parts, tmp_path / "merged")
    assert merged.complete
    assert evidence_files(flatguard.resume(merged, allow_code=True).path) == wanted


def test_a_part_that_is_judged_says_what_it_lacks(asked: dict[str, Any], tmp_path: Path) -> None:
    part = flatguard.evaluate(**asked, out=tmp_path / "part", shard="1/3")
    verdict = flatguard.audit(part)
    assert verdict.verdict == "inconclusive"
    assert "blocks are missing" in verdict.sentence
    assert verdict.next[0] == "flatguard resume RUN --allow-code"
    assert advice(verdict.next[0], part.storage) == (
        f"flatguard resume {tmp_path / 'part'} --allow-code"
    )


def test_more_parts_than_blocks(asked: dict[str, Any], tmp_path: Path) -> None:
    listener = Listener()
    part = flatguard.evaluate(**asked, out=tmp_path / "run", shard="4/4", progress=listener)
    assert part.blocks == []
    assert "part 4 of 4 is empty: the run has 3 blocks" in listener.lines


@pytest.mark.parametrize("workers", [0, -1])
def test_no_workers(workers: int) -> None:
    with pytest.raises(UsageError, match=f"--workers: expected a number from 1 on, got {workers}"):
        choose("processes", workers, None)


def test_shards_of_other_runs_are_refused(asked: dict[str, Any], tmp_path: Path) -> None:
    one = flatguard.evaluate(**asked, out=tmp_path / "one", shard="1/2")
    other = flatguard.evaluate(**{**asked, "seed": 1}, out=tmp_path / "other", shard="2/2")
    with pytest.raises(UsageError, match=r"not shards of one run: request\.seed"):
        flatguard.merge([one, other], tmp_path / "merged")
    shutil.move(str(committed(other.path)[1]), one.path / "evidence" / "blocks")
    with pytest.raises(RunFolderError, match="belongs to another run"):
        flatguard.resume(one.path, allow_code=True)
    assert not (tmp_path / "merged").exists()


def test_changes_since_are_refused(asked: dict[str, Any], tmp_path: Path) -> None:
    run = flatguard.evaluate(**asked, out=tmp_path / "run", shard="1/2")
    torch.manual_seed(5)
    kept = Path(asked["model"]).read_bytes()
    save_file(tiny().state_dict(), asked["model"])
    with pytest.raises(UsageError, match="has other weights now"):
        flatguard.resume(run, allow_code=True)
    Path(asked["model"]).write_bytes(kept)
    images, labels = torch.load(asked["data"], weights_only=True)
    torch.save((images.flip(0), labels), asked["data"])
    with pytest.raises(UsageError, match="serves other images now"):
        flatguard.resume(run, allow_code=True)
    torch.save((images, labels), asked["data"])
    versions = {**run.manifest.versions, "torch": "1.0"}
    older = run.manifest.model_copy(update={"versions": versions})
    write_sealed(run.path / "evidence" / "manifest.json", older)
    with pytest.raises(UsageError, match=r"was begun with torch 1\.0, and here is"):
        flatguard.resume(run.path, allow_code=True)


def test_a_model_from_python_has_to_be_given_again(
    tiny_data: tuple[torch.Tensor, torch.Tensor], tmp_path: Path
) -> None:
    model = tiny().eval()
    run = flatguard.evaluate(
        model, "torchattacks:PGD", data=tiny_data, eps=0.01, batch_size=6, shard="2/2",
        out=tmp_path / "run",
    )  # fmt: skip
    with pytest.raises(UsageError, match="its model came from Python"):
        flatguard.resume(run, allow_code=True)
    with pytest.raises(UsageError, match="its data came from Python"):
        flatguard.resume(run, model=model)
    assert flatguard.resume(run, model=model, data=tiny_data).complete


def test_somebody_elses_block_comes_last_and_the_dead_are_swept(
    asked: dict[str, Any], tmp_path: Path
) -> None:
    run = flatguard.evaluate(**asked, out=tmp_path / "run", shard="3/3")
    host = stage(run.path, "00000").name.split(".")[1]
    (run.path / STAGING / f"00000.{host}.999999999").mkdir(parents=True)
    (run.path / STAGING / "00000.elsewhere.1").mkdir()
    assert run.storage.is_begun(0)
    done = flatguard.resume(run, allow_code=True)
    order = sorted(done.blocks, key=lambda b: committed(run.path)[b.plan.index].stat().st_ctime_ns)
    assert [b.plan.index for b in order] == [2, 1, 0]
    assert [f.name for f in (run.path / STAGING).iterdir()] == ["00000.elsewhere.1"]


@pytest.mark.parametrize("shard", ["0/2", "3/2", "1", "a/b", "-1/2"])
def test_what_is_no_shard(shard: str, asked: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="--shard: expected I/N"):
        flatguard.evaluate(**asked, shard=shard)


def test_budgets_are_counted_in_one_process(asked: dict[str, Any]) -> None:
    with pytest.raises(FlatguardError, match="counted in one process"):
        flatguard.evaluate(**asked, max_forwards=100, executor=Processes(2))
