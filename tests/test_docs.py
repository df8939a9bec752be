"""What the tutorial and the guides tell people to type works."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from support import digits

from flatguard.cli.app import main
from flatguard.detection.conformal import FalsePositiveRate
from flatguard.gate.config import load_config
from flatguard.targets import prepare
from flatguard.targets.target import make_target

DOCS = Path(__file__).resolve().parents[1] / "docs"


def blocks(page: str, language: str) -> list[str]:
    text = (DOCS / page).read_text("utf-8")
    return re.findall(rf"^```{language}[^\n]*\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def commands(page: str) -> list[str]:
    lines = [line for block in blocks(page, "sh") for line in block.splitlines()]
    return [line.partition("  #")[0].strip() for line in lines]


def flatguard(command: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main(shlex.split(command)[1:])
    return int(caught.value.code or 0)


def test_the_tutorial(capsys: pytest.CaptureFixture[str]) -> None:
    """Its commands, in their order, end as it says."""
    honest, masked, audit, gate, save, check = commands("tutorial.md")
    assert flatguard(honest) == 0
    assert re.search(r"robust accuracy.* 0\.0%", capsys.readouterr().out)
    assert flatguard(masked) == 1
    assert "masked by saturation" in capsys.readouterr().out
    assert flatguard(audit) == 1
    (config,) = blocks("tutorial.md", "yaml")
    Path("release.yaml").write_text(config)
    typed = [sys.executable, "-m", *shlex.split(gate)]
    shown = subprocess.run(typed, capture_output=True, text=True, check=False)
    assert shown.returncode == 0, shown.stdout
    assert "20 passed" in shown.stdout
    assert flatguard(save) == 0
    assert flatguard(check) == 3
    assert "\ninconclusive: " in capsys.readouterr().out


@pytest.mark.parametrize(
    "command", [c for c in commands("how-to/configs.md") if "--model" not in c]
)
def test_the_commands_of_the_configs_page(command: str) -> None:
    assert flatguard(command) == 0


def test_every_published_protocol_is_in_the_guide() -> None:
    from flatguard.gate.config import published

    text = (DOCS / "how-to" / "configs.md").read_text("utf-8")
    assert all(f"`{name}`" in text for name in published())


def test_the_recipes_are_yaml_and_their_commands_parse() -> None:
    for block in blocks("how-to/ci.md", "yaml"):
        assert isinstance(yaml.safe_load(block), dict)


def test_every_check_has_a_section_with_its_source_and_what_it_fails_to_see() -> None:
    from flatguard.checks.registry import check_names

    text = (DOCS / "verdict.md").read_text("utf-8")
    for name in check_names():
        section = text.split(f"\n### {name}\n")[1].split("\n##")[0]
        said = " ".join(section.split())
        assert "*Source*" in said, name
        assert "*Fails to see*" in said, name


def test_the_example_is_a_valid_config() -> None:
    config = load_config(DOCS.parent / "examples" / "release_gate" / "release.yaml")
    assert config.gate is not None
    assert config.gate.min_robust_accuracy == 0.5


def test_the_commands_of_the_scaling_page(capsys: pytest.CaptureFixture[str]) -> None:
    """In their order; without checks a run is inconclusive, and a shard is not judged."""
    codes = [flatguard(command) for command in commands("scaling.md")]
    assert codes == [3, 3, 0, 0, 0, 3]
    assert "4 of 4 blocks are in reports/whole" in capsys.readouterr().out


def test_the_commands_of_detection(
    digits_files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(digits_files / "digits.safetensors", tmp_path / "weights.safetensors")
    shutil.copy(digits_files / "digits.npz", tmp_path / "images.npz")
    shutil.copy(digits.__file__, tmp_path / "model.py")
    images, labels = digits.digits()
    unseen = slice(digits.TRAINING, None)
    pixels = images[unseen].permute(0, 2, 3, 1).numpy()
    np.savez(tmp_path / "clean.npz", images=pixels, labels=labels[unseen].numpy())
    typed = commands("detection.md")
    assert len(typed) == 4
    for command in typed:
        assert flatguard(command) in (0, 1, 3), command
        assert capsys.readouterr().out
    space = {
        "target": prepare(make_target(digits.trained(), "digits", "here"), images[:8]),
        "clean_images": images[unseen], "images": images[:20],
    }  # fmt: skip
    (code,) = blocks("detection.md", "python")
    exec(code, space)
    assert space["answer"].flagged.shape == (20,)  # type: ignore[attr-defined]


def test_the_commands_of_claims(
    digits_files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The clean images in place of examples: they show too little, and the checks too much."""
    shutil.copy(digits_files / "digits.safetensors", tmp_path / "weights.safetensors")
    shutil.copy(digits.__file__, tmp_path / "model.py")
    pixels, labels = digits.digits()
    held = slice(digits.TRAINING, digits.TRAINING + 40)
    np.savez(tmp_path / "images.npz", images=pixels[held].numpy(), labels=labels[held].numpy())
    torch.save(pixels[held], tmp_path / "adv.pt")
    with_examples, on_a_run, normal = commands("how-to/claims.md")
    assert flatguard(with_examples) == 1
    assert "claim refuted: 77.5% is claimed, and at most 70.0% is true" in capsys.readouterr().out
    assert flatguard(on_a_run) == 1
    assert flatguard(normal) in (0, 1, 3)
    (code,) = blocks("how-to/claims.md", "python")
    space: dict[str, object] = {}
    exec(code, space)
    assert space["answer"].word == "refuted"  # type: ignore[attr-defined]


def test_how_many_images_detection_needs() -> None:
    page = (DOCS / "detection.md").read_text("utf-8")
    for alpha in (0.05, 0.01):
        rates = (
            FalsePositiveRate(alpha, "low"),
            FalsePositiveRate(alpha),
            FalsePositiveRate(alpha, "low", delta=0.05),
        )
        cells = " | ".join(str(rate.min_samples()) for rate in rates)
        assert f"| {alpha:.0%} | {cells} |" in page


def test_the_commands_and_python_of_language_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As they are, on a tiny model in place of SmolLM2."""
    pytest.importorskip("nanogcg")
    from support import language_models

    name = f"hf:{language_models.save(tmp_path / 'model')}"
    typed = commands("how-to/language-models.md")
    assert len(typed) == 3
    for command in typed:
        assert flatguard(command.replace("smollm2", name)) == 0, command
        assert "reports/bees/report.html" in capsys.readouterr().out
    (code,) = blocks("how-to/language-models.md", "python")
    space: dict[str, object] = {}
    exec(code.replace("smollm2", name), space)
    assert len(space["table"]) == 2  # type: ignore[arg-type]


def test_the_python_of_trackers() -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    (code,) = blocks("how-to/trackers.md", "python")
    exec(code, {})
    assert list(Path("reports").glob("*/tensorboard/events*"))


def test_the_python_of_notebooks() -> None:
    (code,) = blocks("how-to/notebooks.md", "python")
    space: dict[str, Any] = {}
    exec(code, space)
    assert space["run"].summary["sentence"] in space["run"]._repr_html_()


def test_the_performance_page(capsys: pytest.CaptureFixture[str]) -> None:
    """Its command runs, and each option of `--engine` has its row."""
    from flatguard.environment.engines import ENGINES

    (command,) = commands("performance.md")
    assert flatguard(command) == 3  # four images decide nothing
    assert (
        "channels-last, bfloat16: the faster copy that was searched leaves 0.0%"
        in capsys.readouterr().out
    )
    text = (DOCS / "performance.md").read_text("utf-8")
    assert all(f"\n| `{name}` | " in text for name in ENGINES)
