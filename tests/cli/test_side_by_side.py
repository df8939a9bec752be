"""Two runs in the terminal."""

from pathlib import Path

from support.reports import Names, judged

from flatguard.cli.side_by_side import aligned


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    assert list(aligned([["a", "bb", ""], ["ccc", "d", "e"]])) == ["a    bb", "ccc  d   e"]


def test_sides_accuracies_and_checks_are_shown(tmp_path: Path, cli) -> None:
    judged(tmp_path / "a")
    judged(tmp_path / "b")
    lines = cli("compare", "a", "b").out.splitlines()
    assert [line[:3] for line in lines[:2]] == ["A  ", "B  "]
    assert any(line.split()[:2] == ["60", "samples"] for line in lines)
    assert any(line.startswith("check ") for line in lines)
    assert any(line.startswith("gradient-truth ") for line in lines)


def test_settings_that_differ_are_listed(tmp_path: Path, cli) -> None:
    judged(tmp_path / "a")
    judged(tmp_path / "b", names=Names(model="another"))
    assert "differs: model  made up → another" in cli("compare", "a", "b").out.splitlines()
