"""`flatguard geometry landscape`; the losses themselves are in tests/studies/test_stutz.py."""

from pathlib import Path

import pandas as pd
from support.commands import CHECKPOINT, PGD

from flatguard.cli.landscape import _rows


def test_each_row_has_the_mean_and_the_extremes_over_directions() -> None:
    table = pd.DataFrame(
        {
            "t": [0.0, 0.0, 0.0, 0.0], "direction": [0, 0, 1, 1],
            "robust_loss": [1.0, 3.0, 4.0, 6.0], "clean_loss": [0.0, 2.0, 1.0, 1.0],
        }
    )  # fmt: skip
    assert _rows(table) == [
        {"t": 0.0, "robust_loss": 3.5, "lowest": 2.0, "highest": 5.0, "clean_loss": 1.0}
    ]


def test_code_runs_only_with_consent(cli, files: Path) -> None:
    cli(*CHECKPOINT, *PGD, "--out", "run", "--checks", "none")
    result = cli("geometry", "landscape", "run")
    assert (result.code, result.err.count("\n")) == (2, 1)
    assert "run names code that would run here" in result.err
