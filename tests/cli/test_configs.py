"""`flatguard configs`."""

import json

from flatguard.gate.config import published


def test_configs(cli) -> None:
    listed = cli("configs")
    assert listed.code == 0
    assert all(name in listed.out for name in published())
    assert cli("configs", "release").out == published()["release"].read_text("utf-8")
    rows = json.loads(cli("configs", "--json").out)
    assert {row["name"] for row in rows} == set(published())
    assert all("tolerance" not in row for row in rows)
    assert json.loads(cli("configs", "--schema").out)["title"] == "A config of flatguard"
    assert cli("configs", "relese").code == 2
