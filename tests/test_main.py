"""`python -m flatguard` is the command line, and reports a broken installation in one line."""

import subprocess
import sys
from pathlib import Path

import pytest

from flatguard.__main__ import main

ROOT = Path(__file__).resolve().parents[1]


def test_the_module_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "flatguard", "--version"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip().endswith("0.1.0")


def test_a_missing_package_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "flatguard.cli.app", None)
    monkeypatch.setattr("flatguard.environment.requirements.explain", lambda error: "no rich")
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    assert capsys.readouterr().err == "flatguard: no rich\n"


def test_another_error_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "flatguard.cli.app", None)
    monkeypatch.setattr("flatguard.environment.requirements.explain", lambda error: None)
    with pytest.raises(ImportError):
        main()
