"""What `flatguard detect` prints."""

from pathlib import Path

import pandas as pd
import pytest

from flatguard.cli.detected import show_scores, write_scores
from flatguard.errors import UsageError

TABLE = pd.DataFrame({"log_kappa": [1.0, None, 3.0], "flagged": [False, True, True]})


@pytest.mark.parametrize("name", ["a/scores.csv", "a/scores.parquet"])
def test_a_row_an_image_is_written(tmp_path: Path, name: str) -> None:
    write_scores(TABLE, tmp_path / name)
    read = pd.read_csv if name.endswith("csv") else pd.read_parquet
    pd.testing.assert_frame_equal(read(tmp_path / name), TABLE)


def test_a_file_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "scores.csv").mkdir()
    with pytest.raises(UsageError, match=r"cannot write .*scores\.csv"):
        write_scores(TABLE, tmp_path / "scores.csv")


def test_flagged_images_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    show_scores(TABLE, None)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "flagged  2 of 3 images (66.7%)"
    assert lines[1].endswith(": 1")
    assert lines[2].startswith("a flag is no proof of an attack")
