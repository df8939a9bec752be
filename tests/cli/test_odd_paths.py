"""Spaces, commas, quotes, signs and letters of other scripts, in every path."""

import contextlib
import io
import json
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from support.architectures import tiny
from support.evidence_files import evidence_files

from flatguard.cli.app import main

ARCH = Path(__file__).parents[1] / "support" / "architectures.py"
ODD = "a, b & c's ü κ [1] %41 #2"
JUDGED = (0, 1, 3)


def judged(*arguments: object) -> str:
    """What a command prints that ends as a judged run does."""
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.raises(SystemExit) as caught,
    ):
        main([str(argument) for argument in arguments])
    assert caught.value.code in JUDGED, err.getvalue()
    return out.getvalue()


def advised(output: str) -> list[str]:
    """The first command that the answer advises, as a shell reads it."""
    line = next(x for x in output.splitlines() if x.startswith("next: flatguard "))
    return shlex.split(line.removeprefix("next: flatguard "))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model, its architecture, and the same images in every form that is read."""
    odd = tmp_path / ODD
    odd.mkdir()
    monkeypatch.chdir(odd)
    torch.manual_seed(0)
    save_file(tiny().state_dict(), odd / "nét, 1.safetensors")
    shutil.copy(ARCH, odd / "ärch, 1.py")
    pixels = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 3), dtype=np.uint8)
    labels = np.arange(12) % 4
    np.savez(odd / "dätä, 1.npz", images=pixels, labels=labels)
    np.save(odd / "im, ages.npy", pixels)
    np.save(odd / "läb, els.npy", labels)
    torch.save((torch.tensor(pixels), torch.tensor(labels)), odd / "dätä, 1.pt")
    for number, label in enumerate(labels):
        place = odd / "images, ü" / f"cläss, {label}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels[number]).save(place / f"{number}, ü.png")
    return odd


def asked(odd: Path, data: str, *others: object) -> list[object]:
    return [
        "evaluate", "--model", odd / "nét, 1.safetensors", "--arch", f"{odd / 'ärch, 1.py'}:tiny",
        "--dataset", data, "--attack", "torchattacks:PGD", "--attack-arg", "steps=2", "--eps",
        "4/255", "--batch-size", 5, "--threads", 1, "--quiet", *others,
    ]  # fmt: skip


def test_a_run_and_all_that_is_done_with_it(folder: Path) -> None:
    run, data = folder / "rün, 1", f"{folder / 'im, ages.npy'},{folder / 'läb, els.npy'}"
    answer = judged(*asked(folder, data, "--out", run, "--checks", "none", "--workers", 2))
    assert str(run / "report.html") in answer
    more = advised(answer)  # more checks, with this run's folder
    assert str(run) in more
    assert json.loads(judged(*more, "--json"))["run"] == str(run)
    before = evidence_files(run)
    shutil.rmtree(next((run / "evidence" / "blocks").glob("00001-*")))
    judged("evaluate", "--resume", run, "--allow-code", "--quiet")
    assert evidence_files(run) == before
    for number in (1, 2):
        judged(*asked(folder, data, "--out", f"pärt, {number}", "--shard", f"{number}/2"))
    merged = judged("merge", "pärt, 1", "pärt, 2", "--out", "mérged, 1")
    judged(*advised(merged), "--quiet")
    assert judged("report", run, "mérged, 1").splitlines() == [
        str(run / "report.html"), str(Path("mérged, 1") / "report.html"),
    ]  # fmt: skip
    judged("compare", run, "mérged, 1", "--html", "pägé, 1.html")
    assert "rün, 1" in Path("pägé, 1.html").read_text("utf-8")
    page = (run / "report.html").read_text("utf-8")
    assert "nét, 1" in page
    judged("baseline", "save", run, "--to", "bäse, lines", "--name", "relëase, 1", "--anyway")
    judged("baseline", "check", run, "--against", "bäse, lines/relëase, 1.json")
    judged("geometry", "basin", run)


@pytest.mark.parametrize("data", ["dätä, 1.npz", "dätä, 1.pt", "images, ü"])
@pytest.mark.parametrize("is_absolute", [False, True])
def test_every_form_of_data(data: str, is_absolute: bool, folder: Path) -> None:
    name = str(folder / data) if is_absolute else data
    summary = judged(*asked(folder, name, "--out", "rün", "--checks", "none", "--json"))
    assert json.loads(summary)["n_examples"] == 12


def test_a_config(folder: Path) -> None:
    """And the folder that is made up for a run."""
    (folder / "cönfig, 1.yaml").write_text(
        "model: 'nét, 1.safetensors'\narch: 'ärch, 1.py:tiny'\n"
        "dataset: 'im, ages.npy,läb, els.npy'\n"
        "attack: torchattacks:PGD\nattack_args: {steps: 2}\neps: 4/255\nchecks: none\n",
        "utf-8",
    )
    summary = json.loads(
        judged("evaluate", "--config", "cönfig, 1.yaml", "--allow-code", "--json", "--quiet")
    )
    assert summary["n_examples"] == 12
    assert Path(summary["run"]).is_dir()


@pytest.mark.parametrize("out", ["a:b", "1:2/3", "-x,y", "ü?*", "tail.", "%20"])
def test_a_folder_that_looks_like_something_else(out: str, folder: Path) -> None:
    option = f"--out={out}"
    judged(*asked(folder, "dätä, 1.npz", option, "--checks", "none"))
    assert (Path(out) / "evidence" / "manifest.json").is_file()
    assert judged("audit", "--", out)
