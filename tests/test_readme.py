"""What the README shows is what happens."""

import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from support.architectures import resnet20

from flatguard.cli.app import main
from flatguard.cli.demo import STEPS
from flatguard.data.dataset import Batch
from flatguard.runs.run import load_run

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    shown = [line for block in blocks("sh") for line in block.splitlines()]
    lines = [line.partition(" #")[0].strip() for line in shown]
    return [line for line in lines if line.startswith("flatguard ")]


NEEDS_NETWORK = "flatguard evaluate --model Carmon2019 --attack apgd-ce"


@pytest.fixture
def user_files(tmp_path: Path, demo_batch: Batch) -> None:
    """The files that the README's commands name."""
    torch.manual_seed(0)
    save_file(resnet20().state_dict(), tmp_path / "weights.safetensors")
    shutil.copy(ROOT / "tests" / "support" / "architectures.py", tmp_path / "my_models.py")
    pixels = (demo_batch.images * 255).round().byte().permute(0, 2, 3, 1).numpy()
    np.savez(tmp_path / "data.npz", images=pixels, labels=demo_batch.labels.numpy())


@pytest.mark.parametrize("command", commands())
def test_the_commands_do_what_they_say(
    command: str, user_files: None, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(shlex.split(command)[1:])
    captured = capsys.readouterr()
    if command == NEEDS_NETWORK:
        assert caught.value.code == 2
        assert "put the checkpoint at models/cifar10/Linf/Carmon2019Unlabeled.pt" in captured.err
    elif "weights.safetensors" in command:
        assert caught.value.code == 3, captured.err  # these weights are random
        assert "so there is no robustness to judge" in captured.out
    else:
        assert caught.value.code == 0, captured.err


def test_the_shown_commands_are_found() -> None:
    assert NEEDS_NETWORK in commands()
    assert len(commands()) >= 5


def test_the_first_output_is_a_real_one(capsys: pytest.CaptureFixture[str]) -> None:
    """All but the folder's name; and the shown commands are the evaluations that were made."""
    shown = blocks("console")[0].splitlines()
    recipe = (ROOT / "Makefile").read_text("utf-8")
    typed = re.search(r"\$\(BIN\)/(flatguard demo.*)", recipe)
    assert typed is not None
    assert shown[0] == f"$ {typed.group(1)}"
    with pytest.raises(SystemExit) as caught:
        main(shlex.split(typed.group(1))[1:])
    assert caught.value.code == 0
    (folder,) = Path("reports").iterdir()
    printed = capsys.readouterr().out.replace(folder.name, "FOLDER").splitlines()
    assert printed == [re.sub(r"[0-9-]+-flatguard-demo", "FOLDER", line) for line in shown[1:]]
    said = " ".join(line.removesuffix("\\").strip() for line in printed)
    for step in STEPS:
        assert step.command in said
        options = shlex.split(step.command)[2:]
        given = dict(zip(options[::2], options[1::2], strict=True))
        request = load_run(folder / step.folder).request
        assert request.attack == given["--attack"]
        assert request.logit_scale == float(given.get("--logit-scale", 1))
        assert request.n_examples == int(given["--n-examples"])
    page = (folder / "side-by-side.html").read_text("utf-8")
    assert "The path of one image" in page
    assert "logit_scale" in page.partition('id="settings"')[2]


@pytest.mark.parametrize("number", range(len(blocks("python"))))
def test_the_python_runs(number: int) -> None:
    space: dict[str, object] = {}
    exec(compile(blocks("python")[number], f"README block {number}", "exec"), space)
    if "test_release" in space:
        return  # tests/plugin runs it
    if "frame" in space:
        assert len(space["frame"]) == 80  # type: ignore[arg-type]
    else:
        assert space["run"].complete  # type: ignore[attr-defined]


def test_the_house_in_the_readme_is_the_house() -> None:
    picture = README.split("flatguard/\n")[1].split("```")[0]
    drawn = set(re.findall(r"([a-z_]+(?:\.py|/))(?=\s)", picture))
    package = ROOT / "flatguard"
    real = {
        f"{p.name}/" if p.is_dir() else p.name
        for p in package.iterdir()
        if not p.name.startswith("_") and p.name != "py.typed"
    }
    assert real <= drawn
