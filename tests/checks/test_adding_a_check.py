"""The check of CONTRIBUTING.md is one file: in a copy of the tree, and in another distribution."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.examples import example

import flatguard

PACKAGE = Path(flatguard.__file__).parent

CHECK = example(Path(__file__).parents[2] / "CONTRIBUTING.md", "flatguard/checks/brightness.py")

TRIAL = """
import sys
from pathlib import Path

import torch
from support.digits import digits, digits_net

import flatguard
from flatguard.checks.registry import check_names
from flatguard.gate.config import Thresholds
from flatguard.runs.check_evidence import load_probes, load_tables

package, out = map(Path, sys.argv[1:])
assert Path(flatguard.__file__).parent == package, flatguard.__file__
torch.manual_seed(0)
images, labels = digits()
run = flatguard.evaluate(
    digits_net().eval(), "torchattacks:FGSM", data=(images[:60], labels[:60]), out=out,
    eps=0.05, checks="standard",
)
table = load_tables(run, load_probes(run)["brightness"])["attempts"]
assert set(table["sample"]) == set(run.samples.loc[run.samples["robust"], "sample"]), "the plan"
found = flatguard.audit(run).findings
assert [finding.check for finding in found] == list(check_names()), "the verdict"
assert found[-1].check == "brightness", found
assert found[-1].status in ("pass", "warn", "fail"), found[-1]
assert Thresholds(allow=("brightness",)), "the gate"
for name in ("report.html", "report.md", "report.json"):
    assert "a shift fools " in (out / name).read_text("utf-8"), name
page = (out / "report.html").read_text("utf-8")
assert "A robust model survives a shift within its radius." in page
"""


def _run(script: str, *arguments: object, path: list[Path], folder: Path) -> None:
    tests = Path(__file__).parents[1]
    command = [sys.executable, "-c", script, *map(str, arguments)]
    done = subprocess.run(
        command,
        cwd=folder,
        env={"PYTHONPATH": ":".join(map(str, [*path, tests])), "PATH": "", "HOME": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_one_file_in_a_copy_of_the_tree(tmp_path: Path) -> None:
    copy = tmp_path / "tree" / "flatguard"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    (copy / "checks" / "brightness.py").write_text(CHECK)
    _run(TRIAL, copy, tmp_path / "run", path=[copy.parent], folder=tmp_path)


def _distribution(folder: Path, entry: str) -> None:
    info = folder / "lamp-1.0.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lamp\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[flatguard.checks]\n{entry}\n")


def test_an_entry_point_of_another_distribution(tmp_path: Path) -> None:
    (tmp_path / "lamp.py").write_text(CHECK)
    _distribution(tmp_path, "brightness = lamp:CHECK")
    path = [tmp_path, PACKAGE.parent]
    _run(TRIAL, PACKAGE, tmp_path / "run", path=path, folder=tmp_path)


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        ("bad = no_such_module:CHECK", "cannot be loaded: No module named 'no_such_module'"),
        ("bad = json:dumps", "is function, not a flatguard.checks.check.Check"),
        ("bad = lamp:CHECK", "calls itself brightness"),
        ("angry = angry:CHECK", "failed: no lamp"),
    ],
)
def test_a_broken_entry_point_is_one_line_that_names_its_distribution(
    entry: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from support.evidence import judged_by

    from flatguard.checks.verdict import judge

    (tmp_path / "lamp.py").write_text(CHECK)
    (tmp_path / "angry.py").write_text(
        "from flatguard.checks.check import Check\n"
        "def judge(evidence, tolerance):\n    raise RuntimeError('no lamp')\n"
        "CHECK = Check('angry', 'a test', '', judge)\n"
    )
    _distribution(tmp_path, entry)
    monkeypatch.syspath_prepend(str(tmp_path))
    verdict = judge(judged_by())
    finding = verdict.findings[-1]
    assert (finding.check, finding.status) == (entry.split(" ")[0], "not-run")
    assert f"of the distribution lamp {why}" in finding.summary
    assert "\n" not in finding.summary
    assert finding.next == "update or uninstall lamp"
    assert verdict.verdict == "consistent"


def test_a_name_of_our_own_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from flatguard.checks import basin
    from flatguard.checks.registry import check_names, load_checks

    _distribution(tmp_path, "basin = no_such_module:CHECK")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert check_names().count("basin") == 1
    assert basin.CHECK in load_checks()
