"""The terms at the end of an output that has no page."""

import io

import pytest
from rich.console import Console

from flatguard.cli.terms import show_terms
from flatguard.reporting.glossary import TERMS


def shown(*texts: str, **options: object) -> str:
    console = Console(file=io.StringIO(), soft_wrap=True, highlight=False, **options)  # type: ignore[arg-type]
    show_terms(console, *texts)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_only_the_terms_of_the_texts_are_explained() -> None:
    meaning = next(term.meaning for term in TERMS if term.name == "AUROC")
    assert shown("AUROCs", "nothing") == f"\nWhat the terms mean\nAUROC: {meaning}\n"


def test_a_text_without_terms_adds_nothing() -> None:
    assert shown("nothing here") == ""


@pytest.mark.parametrize("width", [40, 80])
def test_a_terminal_has_whole_words(width: int) -> None:
    lines = shown("AUROC", force_terminal=True, width=width).splitlines()
    assert len(lines) > 3
    assert all(len(line) <= width for line in lines)
    assert lines[3].startswith("  ")
