"""Annotations of GitHub Actions: whatever a run says stays in the line that it belongs to."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flatguard.gate.github import Error, announce


@given(title=st.text(), text=st.text())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_text_begins_a_command_of_its_own(
    title: str, text: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path_factory.getbasetemp() / "summary.md"))
        (line,) = announce("a run", [Error(title, text)])
    assert not {"\n", "\r"} & set(line)
    command, told = line.removeprefix("::error title=").split("::", 1)
    assert ":" not in command
    assert "," not in command
    pairs = [("%3A", ":"), ("%2C", ","), ("%0D", "\r"), ("%0A", "\n"), ("%25", "%")]
    for coded, plain in pairs:
        command = command.replace(coded, plain)
    for coded, plain in pairs[2:]:
        told = told.replace(coded, plain)
    assert (command, told) == (title, text)


def test_outside_of_actions_nothing_is_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    assert announce("a run", [Error("a", "b")]) == []


def test_the_step_summary_is_added_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "summary.md"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(file))
    announce("one", [])
    announce("two", [])
    assert file.read_text("utf-8") == "one\n\ntwo\n\n"
