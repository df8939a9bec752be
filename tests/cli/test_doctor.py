"""`flatguard doctor`; what it looks at is in tests/environment/test_doctor.py."""

import json

from flatguard.environment.doctor import diagnose


def test_a_row_a_diagnosis(cli) -> None:
    result = cli("doctor", "--json")
    rows = json.loads(result.out)
    assert [row["subject"] for row in rows] == [row.subject for row in diagnose()]
    broken = any(row["status"] == "broken" for row in rows)
    assert result.code == (2 if broken else 0)
    shown = cli("doctor").out
    assert all(row["subject"] in shown for row in rows)
