"""Text of a run in Markdown, as a Markdown parser reads it."""

import re

from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from flatguard.reporting.judged_run import JudgedRun
from flatguard.reporting.markdown import escape_markdown, markdown_summary
from flatguard.reporting.report import report_files
from flatguard.reporting.text import visible
from flatguard.runs.run import Run

PARSER = MarkdownIt("commonmark").enable("table")


@given(
    st.text() | st.text("\\`*_[]()<>#|!~@&$:/. \nax1-=") | st.from_regex(r"<\w+|&\w+;|!?\[.\]\(.")
)
def test_any_text_is_shown_as_text(text: str) -> None:
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


def test_no_user_is_named_and_nothing_is_linked() -> None:
    escaped = escape_markdown("@everyone see https://example.org and #1")
    assert "@" not in escaped
    assert "://" not in escaped
    assert "#1" not in escaped.replace("\\#1", "")


def test_hostile_names_stay_in_their_cells(hostile: Run) -> None:
    summary = report_files(hostile).markdown.read_text("utf-8")
    assert "<" not in summary
    subject = summary.splitlines()[2]
    assert "|" not in subject
    assert "\\`" in subject
    rows = [line for line in summary.splitlines() if line.startswith("|")]
    bars = {len(re.findall(r"(?<!\\)\|", row)) for row in rows}
    assert bars == {4, 5}


def test_the_summary_has_the_verdict_and_every_finding(run: Run) -> None:
    judged_run = JudgedRun.load(run)
    lines = markdown_summary(judged_run, "Nightly").splitlines()
    assert lines[0] == f"### {escape_markdown('Nightly: ' + judged_run.verdict.sentence)}"
    for finding in judged_run.verdict.findings:
        assert any(line.startswith(f"| {escape_markdown(finding.check)} |") for line in lines)
    for step in judged_run.verdict.next:
        assert f"- Next: {escape_markdown(step)}" in lines
