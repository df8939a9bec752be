"""The doctor looks at the real installation."""

import json
from pathlib import Path

import pytest
from flatguard.doctor import LIBRARIES, diagnose

from flatguard import compat
from flatguard.cli.app import main


def test_this_installation_is_healthy() -> None:
    rows = {row.subject: row for row in diagnose()}
    assert not [row for row in rows.values() if row.status == "broken"]
    for library in LIBRARIES:
        assert rows[f"import {library}"].status == "ok"
    assert rows["autoattack"].status in ("ok", "mended")
    assert "robustbench" in rows["top-level tests/"].found
    for row in rows.values():
        assert row.found
        assert row.status != "mended" or row.mended


def test_an_overwritten_robustbench_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compat, "robustbench_overwritten", lambda: ["robustbench/__init__.py"])
    with pytest.raises(SystemExit) as caught:
        main(["doctor"])
    assert caught.value.code == 2


def test_the_table_and_its_json(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["doctor"])
    assert caught.value.code == 0
    table = capsys.readouterr().out
    for words in ("found", "mended", "what to do", "pyautoattack", "torchvision"):
        assert words in table
    with pytest.raises(SystemExit):
        main(["doctor", "--json"])
    rows = json.loads(capsys.readouterr().out)
    assert {"subject", "status", "found", "mended", "do"} == set(rows[0])
