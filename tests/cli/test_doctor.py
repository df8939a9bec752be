"""`flatguard doctor`; what it looks at is in tests/environment/test_doctor.py."""

import json

import pytest

from flatguard.environment.doctor import Diagnosis, diagnose


def test_a_row_a_diagnosis(cli) -> None:
    result = cli("doctor", "--json")
    rows = json.loads(result.out)
    assert [row["subject"] for row in rows] == [row.subject for row in diagnose()]
    broken = any(row["status"] == "broken" for row in rows)
    assert result.code == (2 if broken else 0)
    shown = cli("doctor").out
    assert all(row["subject"] in shown for row in rows)


def test_a_broken_installation_exits_with_2(cli, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [Diagnosis("torch", "ok", "2.0"), Diagnosis("timm", "broken", "is not there", do="it")]
    monkeypatch.setattr("flatguard.environment.doctor.diagnose", lambda: rows)
    result = cli("doctor")
    assert result.code == 2
    assert "1 of 2 are broken" in result.out
    assert "do: it" in result.out
    assert cli("doctor", "--json").code == 2
