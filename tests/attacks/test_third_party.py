"""The documented example adds adversarial-library's attacks, for real."""

import re
from pathlib import Path

import pytest

import flatguard
from flatguard.attacks import find_attack, list_attacks
from flatguard.data.dataset import Batch
from flatguard.errors import AttackError

DOC = (Path(__file__).parents[2] / "docs" / "third-party-attacks.md").read_text("utf-8")


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package on the path with the document's module and entry point, as pip leaves it."""
    pytest.importorskip("adv_lib.attacks", reason="adv-lib is not here: make adv-lib")
    blocks = dict(re.findall(r"```(toml|python)\n(.*?)```", DOC, flags=re.DOTALL))
    (tmp_path / "flatguard_advlib.py").write_text(blocks["python"])
    info = tmp_path / "flatguard_advlib-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: flatguard-advlib\nVersion: 1.0\n")
    line = blocks["toml"].splitlines()[1].replace('"', "")
    (info / "entry_points.txt").write_text(f"[flatguard.attacks]\n{line}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    return info


@pytest.mark.parametrize(
    ("name", "norm", "eps"), [("advlib:ddn", "L2", 1.0), ("advlib:fmn", "Linf", "8/255")]
)
def test_the_documented_example_runs(
    name: str, norm: str, eps: object, installed: Path, demo_batch: Batch
) -> None:
    data = (demo_batch.images[:4], demo_batch.labels[:4])
    target = flatguard.load_target("demo")
    run = flatguard.evaluate(target, name, data=data, norm=norm, eps=eps, attack_args={"steps": 30})
    assert run.summary["robust_accuracy"] < run.summary["clean_accuracy"] == 1.0
    assert run.summary["rows_unassigned"] == 0
    assert run.summary["sample_forwards"] >= 120
    assert run.manifest.attack_args["steps"] == 30


def test_it_is_listed_and_its_arguments_are_checked(installed: Path) -> None:
    assert {"advlib:ddn", "advlib:fmn"} <= {info.name for info in list_attacks()}
    assert find_attack("advlib:FMN").norms == ("L0", "L1", "L2", "Linf")
    with pytest.raises(AttackError, match="nearest: steps"):
        flatguard.evaluate("demo", "advlib:ddn", eps=0.5, attack_args={"step": 1})


def test_the_example_is_short() -> None:
    code = re.findall(r"```python\n(.*?)```", DOC, flags=re.DOTALL)[0]
    lines = [line for line in code.splitlines() if line.strip() and "import" not in line]
    assert len(lines) <= 25


def test_an_adapter_that_is_broken_is_one_line(installed: Path) -> None:
    with pytest.raises(
        AttackError, match=r"no attack library 'nolib'; there are autoattack, .*advlib"
    ):
        find_attack("nolib:pgd")
    (installed / "entry_points.txt").write_text("[flatguard.attacks]\nbad = no_such_module\n")
    with pytest.raises(AttackError, match="the adapter no_such_module for bad: No module named"):
        find_attack("bad:pgd")
    (installed / "entry_points.txt").write_text("[flatguard.attacks]\nbad = json\n")
    with pytest.raises(AttackError, match=r"needs infos\(\) and build\(\)"):
        find_attack("bad:pgd")
