"""Runs to log: one that is made up, and one that is attacked."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from support.architectures import tiny
from support.commands import Result
from support.reports import judged

import flatguard
from flatguard.cli.app import main
from flatguard.runs.run import Run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return judged(tmp_path / "runs" / "first")


@pytest.fixture
def other(tmp_path: Path) -> Run:
    return judged(tmp_path / "runs" / "second", seed=1)


@pytest.fixture
def attacked(tiny_data: tuple[torch.Tensor, torch.Tensor]) -> Callable[..., Run]:
    """Evaluates a tiny model in a second."""
    torch.manual_seed(0)
    model = tiny().eval()

    def evaluate(out: str = "run", **options: Any) -> Run:
        return flatguard.evaluate(
            model, "foolbox:LinfPGD", data=tiny_data, eps="8/255", checks="none",
            attack_args={"steps": 3}, out=out, **options,
        )  # fmt: skip

    return evaluate


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    def call(*arguments: object) -> Result:
        with pytest.raises(SystemExit) as caught:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Result(int(caught.value.code or 0), captured.out, captured.err)

    return call


@pytest.fixture
def files(tmp_path: Path) -> None:
    """A checkpoint and a data set, as a user has them."""
    torch.manual_seed(0)
    save_file(tiny().state_dict(), tmp_path / "weights.safetensors")
    pixels = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 3), dtype=np.uint8)
    np.savez(tmp_path / "data.npz", images=pixels, labels=np.arange(12) % 4)


@pytest.fixture
def silent_server() -> Iterator[str]:
    """The address of a server that accepts and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """What flatguard reports beside the progress."""
    caplog.set_level(logging.WARNING, "flatguard")
    return lambda: [r.getMessage() for r in caplog.records if r.name == "flatguard"]
