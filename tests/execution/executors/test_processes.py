"""Workers that die, and models that cannot be sent."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from support.architectures import tiny
from support.evidence_files import evidence_files
from support.failing import PGD
from torch import nn

import flatguard
from flatguard.errors import FlatguardError
from flatguard.execution.executors import Processes

TESTS = Path(__file__).parents[2]
Images = tuple[torch.Tensor, torch.Tensor]


def test_a_worker_that_dies_is_replaced(tmp_path: Path) -> None:
    code = """
import sys
import time
from pathlib import Path
import torch, flatguard
from flatguard.execution.executors import Executor, InProcess, Processes
from flatguard.execution.progress import Silent
from support.failing import PGD, Dies
if __name__ == "__main__":
    out = Path(sys.argv[1])
    images = torch.rand(12, 3, 8, 8, generator=torch.Generator().manual_seed(7))
    options = {**PGD, "data": (images, torch.arange(12) % 4), "batch_size": 4, "checks": "none"}
    mark = out.parent / "mark"
    flatguard.evaluate(Dies(mark).eval(), **options, out=out)
    mark.touch()
    again = out.parent / "again"
    done = flatguard.evaluate(Dies(mark).eval(), **options, out=again, executor=Processes(1))
    print(done.complete)
"""
    script = tmp_path / "main.py"
    script.write_text(code)
    done = subprocess.run(
        [sys.executable, script, tmp_path / "out"], capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path])},
    )  # fmt: skip
    assert done.stdout.split()[-1] == "True", done.stderr
    assert not (tmp_path / "mark").exists()
    assert evidence_files(tmp_path / "again") == evidence_files(tmp_path / "out")


def test_a_model_that_cannot_be_sent(tiny_data: Images, tmp_path: Path) -> None:
    class Local(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = tiny()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.net(x)

    with pytest.raises(FlatguardError, match="cannot be sent to other processes"):
        flatguard.evaluate(
            Local().eval(), **PGD, data=tiny_data, executor=Processes(2), out=tmp_path / "run"
        )
