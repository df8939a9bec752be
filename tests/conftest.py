"""Shared by all tests: real models, real images, one thread each."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from support import digits
from support.architectures import tiny
from support.commands import Result

import flatguard
from flatguard.cli.app import main
from flatguard.data import load_dataset
from flatguard.data.dataset import Batch
from flatguard.targets import Target, prepare

pytest_plugins = ["pytester"]

ROOT = Path(__file__).resolve().parents[1]
ARCHITECTURES = Path(__file__).parent / "support" / "architectures.py"


def pytest_configure() -> None:
    # A shell starts a job in the background with SIGINT ignored, and child processes inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"  # of child processes too
    os.environ["FLATGUARD_OFFLINE"] = "1"  # no test may need the network


@pytest.fixture(scope="session")
def real() -> Path:
    """The folder of real data beside the repository, or a skip that says what is missing."""
    folder = Path(os.environ.get("FLATGUARD_REAL", ROOT.parent / "shared" / "real"))
    if not (folder / "cifar10_test_first1000.npz").is_file():
        pytest.skip(f"no real data at {folder}; name its folder in FLATGUARD_REAL")
    return folder


@pytest.fixture(scope="session")
def demo_batch() -> Batch:
    return load_dataset("demo").block(0, 20)


@pytest.fixture(scope="session")
def demo(demo_batch: Batch) -> Target:
    return prepare(flatguard.load_target("demo"), demo_batch.images[:4])


@pytest.fixture(scope="session")
def digits_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an honest network for digits, and the images to judge it on."""
    folder = tmp_path_factory.mktemp("digits")
    digits.write(folder)
    return folder


@pytest.fixture
def tiny_data() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    images = torch.rand(12, 3, 8, 8, generator=generator)
    return images, torch.arange(12) % 4


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing may be written beside the sources."""
    monkeypatch.chdir(tmp_path)


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
