"""What processes that were killed left behind, and what those that live have."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from flatguard.runs.owners import ending, sweep_dead
from flatguard.runs.storage import open_storage

BEGINS = """
import sys, time
from flatguard.runs.storage import open_storage
place = open_storage("memory://bucket/run")
place.path.mkdir()
print(place.path, flush=True)
time.sleep(600)
"""


def test_the_mirror_of_a_killed_process_goes_with_the_next_and_a_living_ones_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    children = [
        subprocess.Popen(
            [sys.executable, "-c", BEGINS], stdout=subprocess.PIPE, text=True, env=environment
        )
        for _ in range(2)
    ]
    try:
        mirrors = [Path(child.stdout.readline().strip()) for child in children if child.stdout]
        assert all(tmp_path in mirror.parents and mirror.is_dir() for mirror in mirrors)
        children[0].send_signal(signal.SIGKILL)
        children[0].wait()
        assert mirrors[0].is_dir()
        mine = open_storage("memory://bucket/run")
        assert not mirrors[0].parent.exists()
        assert mirrors[1].is_dir()
        assert tmp_path in mine.path.parents
    finally:
        for child in children:
            child.kill()
            child.communicate()


@pytest.mark.parametrize("name", ["run", "run[1]", "a*"])
def test_only_folders_of_this_hosts_dead_are_swept(tmp_path: Path, name: str) -> None:
    here = ending().rpartition(".")[0]
    gone = 2**22 + 1  # above every process number
    swept = tmp_path / f"{name}{here}.{gone}"
    kept = [
        tmp_path / f"{name}{ending()}", tmp_path / f"{name}.elsewhere.{gone}",
        tmp_path / f"other{here}.{gone}", tmp_path / f"{name}{here}.name", tmp_path / "outside",
    ]  # fmt: skip
    for folder in (swept, *kept):
        folder.mkdir()
    link = tmp_path / f"{name}{here}.{gone + 1}"
    link.symlink_to(tmp_path / "outside")
    sweep_dead(tmp_path, name)
    assert sorted(tmp_path.iterdir()) == sorted([*kept, link])
