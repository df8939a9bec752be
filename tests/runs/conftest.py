"""A made-up run, and one that was attacked."""

from pathlib import Path

import pytest
import torch
from support.architectures import tiny
from support.run_folders import RUN

import flatguard
from benchmarks.fuzz.forging import block_folder
from benchmarks.fuzz.loaders import TINY
from benchmarks.synthetic import make_run
from flatguard.runs.run import Run


@pytest.fixture
def run() -> Run:
    made = make_run(Path("run"), TINY)
    flatguard.audit(made)
    return made


@pytest.fixture
def block(run: Run) -> Path:
    return block_folder(RUN)


@pytest.fixture
def attacked(tiny_data: tuple[torch.Tensor, torch.Tensor], tmp_path: Path) -> Run:
    torch.manual_seed(0)
    return flatguard.evaluate(
        tiny().eval(),
        "torchattacks:PGD",
        data=tiny_data,
        eps="8/255",
        attack_args={"steps": 3},
        batch_size=5,
        out=tmp_path / "run",
    )
