"""Text of a run in Markdown, as a Markdown parser reads it."""

from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from flatguard.reporting.markdown import escape_markdown
from flatguard.reporting.text import visible

PARSER = MarkdownIt("commonmark").enable("table")


@given(
    st.text() | st.text("\\`*_[]()<>#|!~@&$:/. \nax1-=") | st.from_regex(r"<\w+|&\w+;|!?\[.\]\(.")
)
def test_whatever_is_said_is_shown_as_text(text: str) -> None:
    paragraph = PARSER.parse(f"Next: {escape_markdown(text)}.")
    assert [token.type for token in paragraph] == ["paragraph_open", "inline", "paragraph_close"]
    pieces = paragraph[1].children or []
    assert {piece.type for piece in pieces} <= {"text", "text_special"}
    shown = "".join(piece.content for piece in pieces)
    assert shown == f"Next: {' '.join(visible(text).split())}."


@given(st.text("\\`*_[]<>#|!~@&$:/. \nax"))
def test_a_cell_of_a_table_ends_where_it_should(text: str) -> None:
    table = PARSER.parse(f"| a | b |\n|---|---|\n| {escape_markdown(text)} | last |")
    cells = [token for token in table if token.type == "td_open"]
    assert len(cells) == 2
    assert "last" in table[-5].content


def test_nobody_is_named_and_nothing_is_linked() -> None:
    said = escape_markdown("@everyone see https://example.org and #1")
    assert "@" not in said
    assert "://" not in said
    assert "#1" not in said.replace("\\#1", "")
