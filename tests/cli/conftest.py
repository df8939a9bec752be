"""The command line, and a checkpoint and a data set for it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from support.architectures import tiny
from support.commands import Result

from flatguard.cli.app import main


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    def call(*arguments: object) -> Result:
        with pytest.raises(SystemExit) as caught:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Result(int(caught.value.code or 0), captured.out, captured.err)

    return call


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A checkpoint and a data set, as a user has them."""
    torch.manual_seed(0)
    save_file(tiny().state_dict(), tmp_path / "weights.safetensors")
    pixels = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 3), dtype=np.uint8)
    np.savez(tmp_path / "data.npz", images=pixels, labels=np.arange(12) % 4)
    return tmp_path
