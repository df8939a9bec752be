"""Fixtures of the tests of execution."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from support.architectures import tiny
from support.failing import PGD

import flatguard
from flatguard.runs.run import Run

ARCH = f"{Path(__file__).parents[1] / 'support' / 'architectures.py'}:tiny"

Images = tuple[torch.Tensor, torch.Tensor]


@pytest.fixture
def glaring(tiny_data: Images) -> Images:
    """Samples 3 and 7 blind the model, and no other comes near."""
    images = tiny_data[0].clone()
    images[:, 0, 0, 0] = 0.5
    images[[3, 7], 0, 0, 0] = 1.0
    return images, tiny_data[1]


@pytest.fixture
def options(tiny_data: tuple[torch.Tensor, torch.Tensor], tmp_path: Path) -> dict[str, Any]:
    """A run of three blocks by names alone, with probes."""
    torch.manual_seed(0)
    save_file(tiny().state_dict(), tmp_path / "weights.safetensors")
    torch.save(tiny_data, tmp_path / "data.pt")
    return {
        "model": str(tmp_path / "weights.safetensors"), "attack": "apgd-ce", "norm": "Linf",
        "arch": ARCH, "data": str(tmp_path / "data.pt"), "eps": "2/255", "batch_size": 5,
        "attack_args": {"n_iter": 4}, "threads": 1, "checks": "fast",
    }  # fmt: skip


@pytest.fixture
def run(tiny_data: Images, tmp_path: Path) -> Run:
    torch.manual_seed(0)
    return flatguard.evaluate(
        tiny().eval(), **PGD, data=tiny_data, batch_size=6, out=tmp_path / "run"
    )
