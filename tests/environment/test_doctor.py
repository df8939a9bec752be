"""The doctor looks at the real installation."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from flatguard.cli.app import main
from flatguard.environment import compat
from flatguard.environment.doctor import IMPORTED, Diagnosis, diagnose, fix
from flatguard.environment.requirements import version_of
from flatguard.errors import EnvironmentProblem


def test_this_installation_is_healthy() -> None:
    rows = {row.subject: row for row in diagnose()}
    assert not [row for row in rows.values() if row.status == "broken"]
    for package in IMPORTED:
        assert rows[package].status == "ok", rows[package]
    for row in rows.values():
        assert row.found
        assert row.status != "workaround" or row.workaround


def test_each_workaround_is_listed_with_package_version_and_report() -> None:
    rows = {row.subject: row for row in diagnose()}
    for each in compat.WORKAROUNDS:
        row = rows[f"workaround for {each.module}"]
        assert ("not needed here" in row.found) is (row.status == "ok")
        owner = each.package if version_of(each.package) else "pyautoattack"
        assert f"{owner} {version_of(owner)}" in row.found
        assert row.report == each.report
        assert row.report.startswith("https://github.com/")


def test_the_list_and_its_json(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["doctor"])
    assert caught.value.code == 0
    shown = capsys.readouterr().out
    for words in ("workaround for autoattack", "report: https", "torchvision", "nothing is broken"):
        assert words in shown
    with pytest.raises(SystemExit):
        main(["doctor", "--json"])
    rows = json.loads(capsys.readouterr().out)
    fields = {"subject", "status", "found", "workaround", "report", "do", "repairs"}
    assert fields == set(rows[0])


def test_fix_says_so_where_there_is_nothing_to_repair(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["doctor", "--fix"])
    assert caught.value.code == 0
    assert "nothing that flatguard can repair was found" in capsys.readouterr().err


WHEEL = """
import base64, hashlib, sys, zipfile
name, files = sys.argv[1], dict(pair.split("=", 1) for pair in sys.argv[3:])
info = f"{name}-1.1.1.dist-info"
files[f"{info}/METADATA"] = f"Metadata-Version: 2.1\\nName: {name}\\nVersion: 1.1.1\\n"
files[f"{info}/WHEEL"] = "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n"
def row(file, text):
    digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest())
    return f"{file},sha256={digest.rstrip(b'=').decode()},{len(text)}"
rows = [row(file, text) for file, text in files.items()]
files[f"{info}/RECORD"] = "\\n".join([*rows, f"{info}/RECORD,,"]) + "\\n"
with zipfile.ZipFile(f"{sys.argv[2]}/{name}-1.1.1-py3-none-any.whl", "w") as wheel:
    for file, text in files.items():
        wheel.writestr(file, text)
"""


@pytest.fixture
def overwritten(tmp_path: Path) -> Path:
    """A real virtual environment in which a second package overwrote files of robustbench."""
    folder = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = folder / "bin" / "python"
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    contents = {
        "robustbench": ["robustbench/__init__.py=NEW = True"],
        "torchattacks": ["robustbench/__init__.py=NEW = False", "torchattacks/__init__.py="],
    }
    for name, files in contents.items():
        subprocess.run([sys.executable, "-c", WHEEL, name, wheels, *files], check=True)
        pip = [python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
        subprocess.run([*pip, wheels / f"{name}-1.1.1-py3-none-any.whl"], check=True)
    return python


REPAIR = """
import sys
sys.path += {paths!r}
from flatguard.environment import compat, doctor
before = compat.robustbench_overwritten()
row = doctor._robustbench_copy()
print(list(doctor.fix([row]))[0])
print(before, compat.robustbench_overwritten(), row.status, row.do)
import robustbench
print(robustbench.NEW)
"""


def test_fix_repairs_an_overwritten_robustbench(overwritten: Path, tmp_path: Path) -> None:
    """The real repair by the real pip or uv, from the very wheel that had been installed."""
    import packaging

    paths = [str(Path(compat.__file__).parents[2]), str(Path(packaging.__file__).parents[1])]
    code = REPAIR.format(paths=paths)
    done = subprocess.run([overwritten, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    command, found, new = done.stdout.splitlines()
    assert " pip install " in command
    assert "--no-deps robustbench @ file://" in command
    assert found.startswith("['robustbench/__init__.py'] [] broken flatguard doctor --fix")
    assert new == "True"


def test_a_repair_that_fails_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    row = Diagnosis("pyautoattack", "broken", "", repairs="pyautoattack")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("UV_OFFLINE", "1")
    monkeypatch.setenv("UV_NO_CACHE", "1")
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    with pytest.raises(EnvironmentProblem, match="pyautoattack was not repaired: ") as caught:
        list(fix([row]))
    assert "\n" not in str(caught.value)
    assert version_of("pyautoattack")


def test_a_package_that_is_too_old_is_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "foolbox-3.0.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: foolbox\nVersion: 3.0.0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    row = next(row for row in diagnose() if row.subject == "version of foolbox")
    assert row.status == "broken"
    assert row.found == "3.0.0; flatguard needs foolbox>=3.3.4"
    assert row.do.endswith("pip install 'foolbox>=3.3.4'")
