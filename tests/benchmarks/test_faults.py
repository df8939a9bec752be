"""The benchmark of kills, in small: every kill is survived, and the run is the same."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.faults import measure


def test_kills_lose_nothing(tmp_path: Path) -> None:
    tally = measure(tmp_path, kills=4, seed=1)
    assert tally.kills == tally.survived == 4
    assert tally.lost == 0
    assert tally.identical == tally.runs
