"""The page of reproduced claims is what its kept results draw."""

import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks import reproduce
from benchmarks.reproduction_page import page
from flatguard.studies import STUDIES, find_study
from flatguard.studies.statement import Statement, read_data
from flatguard.studies.stutz.training_runs import RunStatement


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
        assert find_study(piece.study).models in ("many", "none", "one", "runs", "prompts")
        known = {reproduce.DEMO, reproduce.SMOLLM2, *reproduce.REAL}
        assert set(piece.models) <= known


def test_kept_results_have_the_texts_of_the_data() -> None:
    """A text that changes in `claims.yaml` changes in the kept results too."""
    for result in reproduce.kept():
        known = templates(result.paper)
        for claim in result.claims:
            for part in ("claim", "paper", "rule"):
                text = getattr(claim, part)
                assert any(one.fullmatch(text) for one in known), (result.study, claim.name, text)
            note = claim.note.removesuffix("n counts checkpoints.")
            assert note != claim.note or any(one.search(note) for one in known), note


def templates(paper: str) -> list[re.Pattern[str]]:
    folder = paper.rstrip("0123456789")
    entries = [
        RunStatement(name=name, **entry) if folder == "stutz" else Statement(name=name, **entry)
        for group in read_data(folder, "claims.yaml").values()
        for name, entry in group.items()
    ]
    texts = {
        getattr(entry, part)
        for entry in entries
        for part in ("claim", "paper", "rule", "note", "missing")
    }
    return [re.compile(re.sub(r"\\\{.*?\\\}", ".*", re.escape(text))) for text in texts if text]
