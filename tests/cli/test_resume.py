"""`flatguard resume`, and the commands that the program advises."""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.commands import CHECKPOINT, JUDGED, PGD
from support.evidence_files import evidence_files

import flatguard
from flatguard.errors import RunFolderError


def all_gone(group: int, seconds: float = 20) -> bool:
    """Whether the processes of a group end soon; Python's resource tracker is a little late."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


def test_interrupted_workers_leave_nothing_behind_and_the_run_goes_on(cli) -> None:
    """Ctrl-C of a terminal, which every process of the run gets at once."""
    asked = ["evaluate", "--model", "demo", "--attack", "torchattacks:PGD", "--attack-arg"]
    asked += ["steps=10", "--batch-size", "2", "--threads", "1", "--checks", "none"]
    command = [sys.executable, "-m", "flatguard", *asked, "--workers", "2", "--out", "run"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 120
    while not list(Path("run").glob("evidence/blocks/0*")):
        assert time.monotonic() < deadline, "no block was done"
        assert process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert out.endswith("flatguard resume run goes on\n")
    assert err.endswith("flatguard: interrupted; what was recorded is kept\n")
    assert "Traceback" not in err
    assert all_gone(process.pid)
    done = len(flatguard.load_run("run").blocks)
    assert 1 <= done < 10
    assert not list(Path("run").glob(".staging/*"))
    again = cli("resume", "run", "--workers", "2")
    assert f"{done} of 10 blocks were done before" in again.out
    cli(*asked, "--out", "whole")
    assert evidence_files(Path("run")) == evidence_files(Path("whole"))


@pytest.mark.parametrize("command", [["resume"], ["evaluate", "--resume"]])
def test_a_shard_becomes_a_whole_run(cli, files: Path, command: list[str]) -> None:
    part = cli(*CHECKPOINT, *PGD, "--batch-size", "6", "--out", "run", "--shard", "2/2")
    assert part.code == 0
    assert part.out.splitlines()[-1] == "shard 2/2: 1 of 2 blocks are in run"
    refused = cli(*command, "run")
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "run names code that would run here" in refused.err
    shown = cli(*command, "run", "--allow-code")
    assert shown.code in JUDGED
    assert "1 of 2 blocks were done before" in shown.out
    assert flatguard.load_run("run").complete


@pytest.mark.parametrize("option", [["--eps", "1/255"], ["--attack-arg", "steps=1"], ["--seed", 0]])
def test_the_folder_answers_what_evaluate_asks(cli, option: list[str]) -> None:
    result = cli("evaluate", "--resume", "run", *option)
    assert (result.code, result.err.count("\n")) == (2, 1)
    assert f"{option[0]} is answered by the folder of --resume; leave it out" in result.err


def test_the_printed_command_works(cli, files: Path) -> None:
    cli(*CHECKPOINT, *PGD, "--batch-size", "6", "--out", "a run", "--shard", "1/2")
    with pytest.raises(RunFolderError) as caught:
        _ = flatguard.load_run("a run").summary
    command = re.search(r"flatguard (resume .+) goes on", str(caught.value))
    assert command is not None
    assert cli(*shlex.split(command[1])).code in JUDGED
    assert "robust_accuracy" in flatguard.load_run("a run").summary


def test_a_shard_is_resumed_and_not_judged(cli, files: Path) -> None:
    cli(*CHECKPOINT, *PGD, "--batch-size", "4", "--out", "run", "--shard", "1/3")
    result = cli("resume", "run", "--allow-code", "--shard", "2/3")
    assert result.code == 0
    assert result.out.splitlines()[-1] == "shard 2/3: 2 of 3 blocks are in run"
    assert not Path("run/verdict.json").exists()
