"""Help, exit codes, interrupts, and output that cannot be written."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.commands import CHECKPOINT, JUDGED, PGD

import flatguard


@pytest.mark.parametrize("sink", ["> /dev/full", "| true"])
def test_output_that_cannot_be_written_is_no_traceback(sink: str) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    command = f"{sys.executable} -m flatguard attacks {sink}"
    result = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert "Traceback" not in result.stderr
    if "full" in sink:
        assert result.stderr == "flatguard: cannot write the output: No space left on device\n"


def test_a_file_that_cannot_be_written_is_named(cli, files: Path) -> None:
    cli(*CHECKPOINT, *PGD, "--out", "run")
    result = cli("compare", "run", "run", "--html", "none/page.html")
    assert (result.code, result.err) == (
        2,
        "flatguard: none/page.html: No such file or directory\n",
    )


def test_an_ascii_terminal(files: Path) -> None:
    command = [sys.executable, "-m", "flatguard", *CHECKPOINT, *PGD, "--out", "run"]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    result = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=files)
    assert result.returncode in JUDGED, result.stderr
    assert "robust accuracy" in result.stdout


def test_help_and_version(cli) -> None:
    assert cli("--version").out == f"flatguard {flatguard.__version__}\n"
    usage = cli()
    assert usage.code == 2
    assert "Usage: flatguard" in usage.out + usage.err
    assert "--attack-arg" in cli("evaluate", "--help").out


def test_an_interrupted_run_exits_with_130() -> None:
    command = [sys.executable, "-m", "flatguard", "evaluate", "--model", "demo"]
    command += ["--attack", "square", "--out", "run"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=dict(os.environ))
    deadline = time.monotonic() + 120
    while not Path("run/evidence/manifest.json").exists():
        assert time.monotonic() < deadline, "the run did not begin"
        assert process.poll() is None
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err == "flatguard: interrupted; what was recorded is kept\n"
    if Path("run").exists():  # its only block had called the model already
        run = flatguard.load_run("run")
        assert not run.complete
        assert len(run.failed_trajectory(0)) == run.failures[0].sample_forwards
