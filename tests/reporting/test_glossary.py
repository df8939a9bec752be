"""The terms: each once, every word of a verdict among them, and the same in the docs."""

from pathlib import Path
from typing import get_args

from flatguard.checks.mechanism import Mechanism
from flatguard.checks.verdict import Word
from flatguard.reporting.glossary import TERMS, terms_on

PAGE = Path(__file__).resolve().parents[2] / "docs" / "glossary.md"


def test_every_word_of_a_verdict_is_explained() -> None:
    names = [term.name for term in TERMS]
    assert len(set(names)) == len(names)
    assert {*get_args(Word), *get_args(Mechanism)} <= set(names)


def test_the_page_of_the_docs_has_the_same_terms() -> None:
    rows = [line for line in PAGE.read_text("utf-8").splitlines() if line.startswith("| ")]
    assert rows[1:] == [f"| {term.name} | {term.meaning} |" for term in TERMS]


def names_on(page: str) -> list[str]:
    return [term.name for term in terms_on(page)]


def test_a_page_lists_what_it_shows_and_what_explains_that() -> None:
    assert names_on("<p>Margins.</p>") == ["logits", "margin"]
    assert names_on("<p>p = 0.01</p>") == ["p"]
    assert "budget, ε" in names_on("<p>&#949; is small</p>")
    assert names_on("<p>a state of mind, stop</p>") == []
    assert names_on("<style>.basin{}</style><script>basin</script><p class='basin'></p>") == []
