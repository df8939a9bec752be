"""`--classes`, `--resize` and a `.csv` on the command line: one line each where they do not fit."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from support.architectures import tiny
from support.commands import ARCH, JUDGED

import flatguard

ASK = ["evaluate", "--model", "w.safetensors", "--arch", f"{ARCH}:tiny", "--attack",
       "torchattacks:FGSM", "--norm", "Linf", "--eps", "1/255", "--checks", "none"]  # fmt: skip


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Eight pictures of four classes, which the folders number from 1."""
    torch.manual_seed(0)
    save_file(tiny().state_dict(), tmp_path / "w.safetensors")
    random = np.random.default_rng(0)
    for number in range(8):
        folder = tmp_path / "data" / str(number % 4 + 1)
        folder.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return tmp_path


def test_folders_that_count_from_one(cli, pictures: Path) -> None:
    refused = cli(*ASK, "--dataset", "data")
    assert refused.code == 2
    assert "classes: 1 = 1, 2 = 2, 3 = 3, 4 = 4 (4 folders)" in refused.out
    assert "got 4 for sample 6; a folder whose name is a number" in refused.err.splitlines()[-1]
    Path("c.txt").write_text("1\n2\n3\n4\n")
    assert cli(*ASK, "--dataset", "data", "--classes", "c.txt", "--out", "run").code in JUDGED
    run = flatguard.load_run("run")
    assert run.manifest.data.classes == ("1", "2", "3", "4")
    assert sorted(run.samples["label"]) == [0, 0, 1, 1, 2, 2, 3, 3]
    Path("c.txt").write_text("1\n2\n3\n4\n5\n")
    lines = cli(*ASK, "--dataset", "data", "--classes", "c.txt", "--quiet").err.splitlines()
    assert lines == [
        "flatguard: --classes has 5 names, and the model has 4 classes; expected all of them, in "
        "the model's order"
    ]


def test_a_list_of_pictures_of_two_sizes(cli, pictures: Path) -> None:
    Image.new("RGB", (9, 7)).save("data/1/wide.png")
    Path("list.csv").write_text("path,label\ndata/1/0.png,0\ndata/1/wide.png,3\n")
    refused = cli(*ASK, "--dataset", "list.csv", "--quiet")
    assert (refused.code, len(refused.err.splitlines())) == (2, 1)
    assert "different sizes: sample 1 has 3 x 7 x 9" in refused.err
    resized = cli(*ASK, "--dataset", "list.csv", "--resize", "8", "--out", "run")
    assert resized.code in JUDGED
    run = flatguard.load_run("run")
    assert (run.request.resize, run.manifest.data.image_shape) == ("8x8", (3, 8, 8))
    assert "--resize: expected 224" in cli(*ASK, "--dataset", "list.csv", "--resize", "8by8").err
