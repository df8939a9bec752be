"""The page of reproduced claims is what its kept results draw."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks import reproduce
from benchmarks.reproduction_page import page
from flatguard.studies import STUDIES, find_study


def test_the_page_is_drawn_from_the_kept_results() -> None:
    assert page(STUDIES, reproduce.kept()) + "\n" == reproduce.PAGE.read_text("utf-8")


def test_results_name_no_machine() -> None:
    for file in (*reproduce.KEPT.glob("*.json"), reproduce.PAGE):
        text = file.read_text("utf-8")
        for folder in ("/tmp/", "/home/", "/work/", "/root/"):
            assert folder not in text, file


def test_every_study_that_runs_here_has_a_piece_and_a_result() -> None:
    wanted = {study.name for study in STUDIES if study.status == "runs-here"}
    assert {piece.study for piece in reproduce.PIECES} >= wanted
    assert {result.study for result in reproduce.kept()} >= wanted


def test_pieces_are_chosen_by_name_and_part() -> None:
    piece = next(piece for piece in reproduce.PIECES if piece.study == "walter-fig16")
    assert reproduce.chosen(piece, "")
    assert reproduce.chosen(piece, "walter-fig16")
    assert not reproduce.chosen(piece, "walter-fig1")
    assert reproduce.chosen(piece, "fig16") == reproduce.chosen(piece, "walter")
    for piece in reproduce.PIECES:
        assert find_study(piece.study).models in ("many", "none", "one", "runs")
        assert all(name == reproduce.DEMO or name in reproduce.REAL for name in piece.models)


def test_a_killed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "page.md"
    reproduce.write(file, "old")

    def killed(self: Path, target: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        reproduce.write(file, "new")
    assert file.read_text() == "old\n"
