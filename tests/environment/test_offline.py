"""Which commands use the network: none that does not need it, and none where it is forbidden.

Each command runs in a process whose audit hook writes down every connection and name look-up.
"""

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from benchmarks.synthetic import Size, make_run
from flatguard.environment.offline import NetworkForbidden, keep_offline, last_refusal

SOCKETS = Path(__file__).parents[1] / "support" / "sockets.py"
SMALL = ["--n-examples", "2", "--checks", "none", "--quiet"]


HUB = """
import socket, sys, torch
passed = []
sys.addaudithook(lambda event, arguments: passed.append(event))  # after flatguard's own

def hub():
    return torch.hub.load("pytorch/vision", "resnet18", trust_repo=True)

def direct():
    for host in ("192.0.2.1", "example.org"):
        try:
            socket.create_connection((host, 80), timeout=1)
        except OSError as error:
            print(error, file=sys.stderr)
    assert not {"socket.connect", "socket.getaddrinfo"} & set(passed), passed
    raise SystemExit("no way out")
"""


def ran(commands: list[list[str]], offline: str) -> tuple[list[str], list[tuple[str, int]]]:
    """The sockets that were asked for; and what each command said, with its exit code."""
    environment = {**os.environ, "FLATGUARD_OFFLINE": offline}
    typed = [sys.executable, str(SOCKETS), "asked.json", json.dumps(commands)]
    done = subprocess.run(typed, capture_output=True, text=True, env=environment, check=True)
    pieces = done.stderr.split("\n$ ")
    told = [re.fullmatch(r".*?\n(.*)= (\d+)\n?", piece, re.DOTALL) for piece in pieces]
    said = [(found[1], int(found[2])) for found in told if found is not None]
    assert len(said) == len(commands), done.stderr
    return json.loads(Path("asked.json").read_text()), said


def test_what_needs_no_network_asks_for_none() -> None:
    """Also where it is allowed."""
    make_run(Path("made"), Size(samples=8, steps=2, block=4, side=4))
    commands = [
        ["evaluate", "--model", "demo", "--attack", "torchattacks:FGSM", "--out", "run", *SMALL],
        ["audit", "run", "--quiet"], ["audit", "made", "--quiet"], ["report", "made"],
        ["compare", "made", "made"], ["baseline", "save", "made", "--anyway"], ["configs"],
        ["attacks"], ["models", "Carmon2019"], ["doctor"],
    ]  # fmt: skip
    asked, said = ran(commands, offline="")
    assert asked == []
    assert {code for _, code in said} <= {0, 1, 3}


def test_a_forbidden_network_is_not_used() -> None:
    """Each error is one line that says what to do; a user's own architecture gets no further."""
    Path("net.py").write_text(HUB)
    save_file({"w": torch.zeros(1)}, "w.safetensors")
    attack = ["--attack", "torchattacks:FGSM", "--eps", "8/255", *SMALL]
    commands = [
        ["evaluate", "--model", "Carmon2019", *attack],
        ["evaluate", "--model", "timm:resnet18", "--dataset", "demo", *attack],
        ["evaluate", "--model", "torchvision:resnet18", "--dataset", "demo", *attack],
        ["evaluate", "--model", "demo", "--dataset", "cifar10", *attack],
        ["evaluate", "--model", "demo", "--dataset", "imagenet", *attack],
        *(
            ["evaluate", "--model", "w.safetensors", "--arch", f"net.py:{way}", *attack]
            for way in ("hub", "direct")
        ),
    ]  # fmt: skip
    asked, said = ran(commands, offline="1")
    theirs = ("github.com", "192.0.2.1", "example.org")
    assert [one for one in asked if not any(host in one for host in theirs)] == []
    ways = ("--model-dir", "--arch", "--arch", "--data-dir", "--data-dir", "github.com", "no way")
    for (text, code), way in zip(said, ways, strict=True):
        assert code == 2
        assert way in text
        assert "FLATGUARD_OFFLINE" in text or "no ImageNet at" in text
    assert [text.count("\n") for text, _ in said[:-1]] == [1] * 6
    assert "192.0.2.1 was requested" in said[-1][0]
    assert "example.org was requested" in said[-1][0]


def test_this_machine_is_not_the_network() -> None:
    keep_offline()
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = ("localhost", server.getsockname()[1])
        socket.create_connection(address, timeout=5).close()
    with pytest.raises(NetworkForbidden, match=r"198\.51\.100\.7 was requested"):
        socket.create_connection(("198.51.100.7", 80), timeout=1)


def test_look_ups_and_datagrams_are_refused() -> None:
    keep_offline()
    with pytest.raises(NetworkForbidden, match=r"example\.org was requested"):
        socket.getaddrinfo("example.org", 80)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        with pytest.raises(NetworkForbidden, match=r"192\.0\.2\.1 was requested"):
            datagrams.sendto(b"", ("192.0.2.1", 9))
        datagrams.sendto(b"", ("127.0.0.1", 9))
    assert last_refusal().endswith("192.0.2.1 was requested")


def test_an_unset_variable_allows_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    keep_offline()
    monkeypatch.setenv("FLATGUARD_OFFLINE", "0")
    sys.audit("socket.connect", None, ("192.0.2.1", 9))  # as a real connection would
