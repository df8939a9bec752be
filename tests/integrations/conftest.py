"""Runs to log: one that is made up, and one that is attacked."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from support.architectures import tiny
from support.reports import judged

import flatguard
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
def silent_server() -> Iterator[str]:
    """The address of a server that accepts and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """What flatguard reports beside the progress."""
    caplog.set_level(logging.WARNING, "flatguard")
    return lambda: [r.getMessage() for r in caplog.records if r.name == "flatguard"]
