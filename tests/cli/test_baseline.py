"""`flatguard baseline`."""

import json
from pathlib import Path

from support.reports import judged


def test_a_run_is_kept_and_compared(tmp_path: Path, cli) -> None:
    judged(tmp_path / "run")
    refused = cli("baseline", "save", "run")
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    saved = cli("baseline", "save", "run", "--name", "one", "--anyway", "--json")
    assert json.loads(saved.out) == {"baseline": "baselines/one.json"}
    checked = cli("baseline", "check", "run", "--against", "baselines/one.json", "--json")
    found = json.loads(checked.out)
    assert (found["lost"], found["won"]) == (0, 0)
    assert checked.code == 1  # the run itself is masked
    shown = cli("baseline", "check", "run", "--against", "baselines/one.json").out
    assert "0 of " in shown
    assert "samples were lost" in shown
