"""What differs between systems; the branches of Windows are entered on every system."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from flatguard.environment import system


def test_processors_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python 3.13 says it everywhere; before, only Linux does."""
    monkeypatch.setattr(os, "process_cpu_count", lambda: 3, raising=False)
    assert system.processors() == 3
    monkeypatch.setattr(os, "process_cpu_count", lambda: None)
    assert system.processors() == 1
    monkeypatch.delattr(os, "process_cpu_count")
    if hasattr(os, "sched_getaffinity"):
        assert system.processors() == len(os.sched_getaffinity(0))
        monkeypatch.delattr(os, "sched_getaffinity")
    assert system.processors() == os.cpu_count()


def test_who_is_alive() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert system.is_alive(child.pid)
    assert child.poll() is None  # it was not disturbed
    child.communicate()
    assert not system.is_alive(child.pid)
    assert system.is_alive(os.getpid())


def test_on_windows_no_signal_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """`os.kill(pid, 0)` would end the process there."""
    asked: list[int] = []
    monkeypatch.setattr(system, "is_windows", lambda: True)
    monkeypatch.setattr(system, "_is_alive_on_windows", lambda pid: asked.append(pid) is None)
    monkeypatch.setattr(os, "kill", lambda *_: pytest.fail("a signal was sent"))
    assert system.is_alive(12)
    assert asked == [12]


def test_windows_syncs_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("content")
    system.sync(tmp_path)
    monkeypatch.setattr(system, "is_windows", lambda: True)
    opened: list[int] = []
    real = os.open
    monkeypatch.setattr(os, "open", lambda path, how: opened.append(how) or real(path, how))
    system.sync(tmp_path)
    assert opened == []
    system.sync(tmp_path / "file")
    assert opened == [os.O_RDWR]


def test_windows_waits_for_a_reader_to_close_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.write_text("content")
    new.write_text("before")
    left, real = [3], Path.replace

    def busy(self: Path, target: Path) -> Path:
        left[0] -= 1
        if left[0] > 0:
            raise PermissionError(13, "somebody has it open")
        return real(self, target)

    monkeypatch.setattr(Path, "replace", busy)
    with pytest.raises(PermissionError):
        system.replace(old, new)
    monkeypatch.setattr(system, "is_windows", lambda: True)
    system.replace(old, new)
    assert new.read_text() == "content"


def test_words_of_a_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("flatguard", "audit", "a, b & c's ü/run")
    assert shlex.split(system.quoted(*words)) == list(words)
    monkeypatch.setattr(system, "is_windows", lambda: True)
    assert system.quoted("audit", r"C:\my runs\run") == r'audit "C:\my runs\run"'
