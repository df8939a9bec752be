"""A run that was interrupted and resumed equals the run that never was."""

import itertools
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from support.architectures import tiny
from support.evidence_files import evidence_files
from support.failing import OUT_OF_LUCK, PGD, FailsUnderAttack, Raises
from support.listeners import Listener

import flatguard
from flatguard.errors import AttackError, FlatguardError, ModelError, RunFolderError
from flatguard.execution.progress import Silent
from flatguard.runs.layout import STAGING, committed
from flatguard.runs.run import Run

Images = tuple[torch.Tensor, torch.Tensor]


def test_an_attack_that_fails_keeps_the_blocks_before_it(tiny_data: Images, tmp_path: Path) -> None:
    with pytest.raises(AttackError, match="out of luck; the incomplete run"):
        flatguard.evaluate(
            FailsUnderAttack(8, OUT_OF_LUCK), "torchattacks:PGD", data=tiny_data, eps="1/255",
            batch_size=4, attack_args={"steps": 5}, out=tmp_path / "run",
        )  # fmt: skip
    run = flatguard.load_run(tmp_path / "run")
    assert not run.complete
    assert run.samples["sample"].tolist() == [0, 1, 2, 3]
    assert run.failed_trajectory(1)["sample"].tolist() == [4, 5, 6, 7] * 2
    with pytest.raises(FlatguardError, match="has no summary"):
        _ = run.summary
    with pytest.raises(FlatguardError, match=r"block 0 did not fail; failed blocks \[1\]"):
        run.failed_trajectory(0)


def test_more_failures_than_allowed_end_the_run_and_it_goes_on_when_more_are_allowed(
    glaring: Images, tmp_path: Path
) -> None:
    model, options = Raises().eval(), {**PGD, "data": glaring, "batch_size": 6, "checks": "none"}
    with pytest.raises(FlatguardError, match="cannot see"):
        flatguard.evaluate(model, **options, out=tmp_path / "none")  # 12 samples: none by default
    with pytest.raises(
        ModelError, match="failed on 2 samples, and --max-failures allows 1; the first is sample 3"
    ):
        flatguard.evaluate(model, **options, max_failures=1, out=tmp_path / "one")
    again = flatguard.resume(tmp_path / "one", model=model, data=glaring, max_failures=2)
    assert again.complete
    whole = flatguard.evaluate(model, **options, max_failures=1 + 1, out=tmp_path / "two")
    ours, theirs = evidence_files(again.path), evidence_files(whole.path)
    assert {n: f for n, f in ours.items() if "blocks" in n} == {
        n: f for n, f in theirs.items() if "blocks" in n
    }


def test_a_clock_that_jumps_changes_nothing(
    tiny_data: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After every block it goes to 1970 or to 2100, and all files get dates of then."""
    options = {**PGD, "data": tiny_data, "batch_size": 3, "max_minutes": 5, "checks": "fast"}
    torch.manual_seed(0)
    model, folder = tiny().eval(), tmp_path / "jumps"
    wanted = flatguard.evaluate(model, **options, out=tmp_path / "steady")
    moments = itertools.cycle([0.0, 4_102_444_800.0])

    class Jumps(Silent):
        def advanced(self, samples: int) -> None:
            now = next(moments)
            monkeypatch.setattr(time, "time", lambda: now)
            for file in folder.rglob("*"):
                os.utime(file, (now, now))

    flatguard.evaluate(model, **options, shard="2/2", out=folder, progress=Jumps())
    assert time.time() in (0.0, 4_102_444_800.0)
    again = flatguard.resume(folder, model=model, data=tiny_data, progress=Jumps())
    assert evidence_files(again.path) == evidence_files(wanted.path)
    assert again.summary["verdict"] == wanted.summary["verdict"]


def in_a_child(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True,
        check=False, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip


FULL_DISK = """
import resource, sys, torch, flatguard
from support.architectures import Large, tiny
# As on a full disk, writing a file beyond this size fails; Python ignores SIGXFSZ.
resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000))
torch.manual_seed(0)
images = torch.rand(12, 3, 8, 8, generator=torch.Generator().manual_seed(7))
try:
    flatguard.resume(sys.argv[1], model=tiny().eval(), data=(images, torch.arange(12) % 4))
except flatguard.FlatguardError as error:
    print(type(error).__name__, error)
"""


def test_a_full_disk_is_one_line_and_the_run_goes_on_when_there_is_room(
    run: Run, tiny_data: Images, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model, full = tiny().eval(), tmp_path / "full"
    flatguard.evaluate(model, **PGD, data=tiny_data, batch_size=6, shard="1/2", out=full)
    done = in_a_child(FULL_DISK, full)
    assert done.returncode == 0, done.stderr
    assert "NoRoom cannot write block 00001" in done.stdout
    assert f"flatguard resume {full}" in done.stdout
    assert list(committed(full)) == [0]
    assert not (full / STAGING).exists()
    again = flatguard.resume(full, model=model, data=tiny_data)
    assert evidence_files(again.path) == evidence_files(run.path)


def test_a_report_that_the_disk_does_not_hold(run: Run, tiny_data: Images, tmp_path: Path) -> None:
    """The evidence is complete by then; the report is drawn again once there is room."""
    torch.manual_seed(0)
    model, full = tiny().eval(), tmp_path / "full"
    flatguard.evaluate(model, **PGD, data=tiny_data, batch_size=6, shard="1/2", out=full)
    done = in_a_child(FULL_DISK.replace("6000", "60000"), full)
    assert done.returncode == 0, done.stderr
    assert f"NoRoom cannot write {full / 'report.html'}: " in done.stdout
    assert f"flatguard resume {full}" in done.stdout
    again = flatguard.resume(full, model=model, data=tiny_data)
    assert (full / "report.html").is_file()
    assert evidence_files(again.path) == evidence_files(run.path)


def test_a_folder_that_may_not_be_written(tiny_data: Images, tmp_path: Path) -> None:
    if not Path("/proc/self").exists():
        pytest.skip("needs Linux's /proc, where nobody may write, not even root")
    with pytest.raises(RunFolderError, match="cannot write to /proc"):
        flatguard.evaluate(tiny().eval(), **PGD, data=tiny_data, out="/proc/run")


def without(run: Path, copy: Path, *names: str) -> Path:
    """A copy that lacks what these patterns match."""
    shutil.copytree(run, copy)
    for name in names:
        for path in copy.glob(name):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    return copy


def test_what_is_missing_is_done_and_nothing_twice(options: dict[str, Any], tmp_path: Path) -> None:
    whole = flatguard.evaluate(**options, out=tmp_path / "whole")
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


def test_more_parts_than_blocks(options: dict[str, Any], tmp_path: Path) -> None:
    listener = Listener()
    part = flatguard.evaluate(**options, out=tmp_path / "run", shard="4/4", progress=listener)
    assert part.blocks == []
    assert "part 4 of 4 is empty: the run has 3 blocks" in listener.lines


def test_no_flipped_bit_of_the_evidence_is_read_as_something_else(run: Run, tmp_path: Path) -> None:
    """A random bit of every file: it is found, or what is read is the same."""
    rng = random.Random(0)
    before = flatguard.audit(run).model_dump()
    found = 0
    for file in sorted((run.path / "evidence").rglob("*")):
        if not file.is_file():
            continue
        content = file.read_bytes()
        for _ in range(3):
            flipped = bytearray(content)
            flipped[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
            file.write_bytes(flipped)
            try:
                read = flatguard.audit(run.path).model_dump()
            except RunFolderError:
                found += 1
            else:
                assert read == before, file
        file.write_bytes(content)
    assert found > 40
    assert flatguard.audit(run.path).model_dump() == before


def test_a_truncated_table_is_found_before_anything_is_attacked(run: Run) -> None:
    file = committed(run.path)[0] / "trajectory.parquet"
    file.write_bytes(file.read_bytes()[:-30])
    with pytest.raises(RunFolderError, match="checksum does not match; remove the folder"):
        flatguard.resume(run.path, allow_code=True)
