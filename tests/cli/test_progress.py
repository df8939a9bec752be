"""The progress bar on a terminal, and its silence elsewhere."""

import contextlib
import io
import os
import subprocess
import sys

import pytest
from rich.console import Console

from flatguard.cli.progress import Watcher


@pytest.fixture
def watcher(monkeypatch: pytest.MonkeyPatch) -> tuple[Watcher, io.StringIO]:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    screen = io.StringIO()
    made = Watcher()
    made._progress.live.console = Console(file=screen, force_terminal=True, width=120)
    return made, screen


def test_a_stage_with_a_known_price_moves_by_calls(
    watcher: tuple[Watcher, io.StringIO],
) -> None:
    made, screen = watcher
    with made:
        made.stage("attack", total=20, calls_each=10)
        made.called(20)
        made._progress.refresh()
        assert made._progress.tasks[0].percentage == pytest.approx(10.0)
        made.advanced(10)
        assert made._progress.tasks[0].percentage == pytest.approx(50.0)
        made.called(10**6)  # an estimate that was too low never says that it is done
        assert made._progress.tasks[0].percentage < 100.0
        made.advanced(10)
        assert made._progress.tasks[0].percentage == 100.0
    assert "20/20 images" in screen.getvalue()


def test_a_stage_with_an_unknown_price_pulses(watcher: tuple[Watcher, io.StringIO]) -> None:
    made, _ = watcher
    with made:
        made.stage("attack", total=20)
        assert made._progress.tasks[0].total is None
        made.advanced(5)
        assert made._progress.tasks[0].percentage == pytest.approx(25.0)


def test_no_progress_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with Watcher() as made:  # stderr is no terminal here
        made.stage("attack", total=20, calls_each=10)
        made.advanced(20)
    assert capsys.readouterr().err == ""


LINES = """
from flatguard.cli.progress import Watcher
with Watcher() as watcher:
    watcher.stage("check one", 2)
    watcher.advanced(1)
    watcher.log("a line")
    watcher.advanced(1)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_lines_and_bar_share_a_terminal() -> None:
    """The bar is erased before a line is printed, and drawn again below it."""
    ours, theirs = os.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100"}
    subprocess.run(
        [sys.executable, "-c", LINES], stdout=theirs, stderr=theirs, check=True, env=environment
    )
    os.close(theirs)
    written = b""
    with contextlib.suppress(OSError):  # a terminal that nobody holds any more has no end
        while piece := os.read(ours, 4096):
            written += piece
    os.close(ours)
    before, _, after = written.decode().partition("a line")
    assert "check one" in before
    assert before.endswith("\x1b[2K")
    assert after.startswith("\r\n")
