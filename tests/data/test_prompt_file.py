"""Prompts and targets from a .csv file; every wrong file is one line."""

from pathlib import Path

import pytest

from flatguard.data.prompt_file import read_prompts
from flatguard.errors import DataError


def test_rows_are_read_in_order(tmp_path: Path) -> None:
    file = tmp_path / "prompts.csv"
    file.write_text('target,prompt,note\n"Sure, here",Say hello.,1\nYes,"Two\nlines",2\n')
    assert read_prompts(file) == [("Say hello.", "Sure, here"), ("Two\nlines", "Yes")]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "expected the columns prompt and target, got none"),
        ("prompt,answer\na,b\n", "expected the columns prompt and target, got prompt, answer"),
        ("prompt,target\n", "expected a row for each prompt, got none"),
        ("prompt,target\na,b\n ,c\n", "row 2 has no prompt"),
        ("prompt,target\na\n", "row 1 has no target"),
        (b"\xff\xfe\x00", "holds no table"),
    ],
)
def test_a_wrong_file_is_one_line(tmp_path: Path, text: str | bytes, said: str) -> None:
    file = tmp_path / "prompts.csv"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError, match=said):
        read_prompts(file)


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no file"):
        read_prompts(tmp_path / "none.csv")
