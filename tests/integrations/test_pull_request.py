"""The comment on a pull request: one a config, and never the reason why a job fails."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.github_api import GitHub, github

from flatguard.integrations.pull_request import comment_text, main


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[GitHub]:
    with github() as server:
        for name, value in {
            "GITHUB_API_URL": server.address, "GITHUB_REPOSITORY": "owner/name",
            "GITHUB_TOKEN": "secret", "PULL_REQUEST": "7", "CONFIG": "release.yaml",
            "GITHUB_SERVER_URL": "https://example.org", "GITHUB_RUN_ID": "42",
            "FLATGUARD_OFFLINE": "0",
        }.items():  # fmt: skip
            monkeypatch.setenv(name, value)
        yield server


def told(text: str, capsys: pytest.CaptureFixture[str]) -> str:
    Path("summary.md").write_text(text)
    assert main(["summary.md"]) == 0
    return capsys.readouterr().out


def test_one_comment_is_kept_up_to_date(api: GitHub, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(120):
        api.add("another bot's")
    assert told("first", capsys) == "#121\n"
    assert told("second", capsys) == "#121\n"
    assert len(api.comments) == 121
    body = api.comments[-1]["body"]
    assert body.startswith("<!-- flatguard ")
    assert "\nsecond\n" in body
    assert "(https://example.org/owner/name/actions/runs/42)" in body
    assert api.tokens == {"Bearer secret"}


def test_another_config_has_a_comment_of_its_own(
    api: GitHub, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    told("one", capsys)
    monkeypatch.setenv("CONFIG", "--> other.yaml")
    told("two", capsys)
    assert len(api.comments) == 2
    assert api.comments[1]["body"].count("-->") == 1


def test_the_comment_of_a_person_is_not_overwritten(
    api: GitHub, capsys: pytest.CaptureFixture[str]
) -> None:
    told("ours", capsys)
    api.comments[0]["user"]["type"] = "User"
    told("again", capsys)
    assert [comment["body"].splitlines()[1] for comment in api.comments] == ["ours", "again"]


def test_a_gate_that_judged_nothing_replaces_the_verdict_of_before(
    api: GitHub, capsys: pytest.CaptureFixture[str]
) -> None:
    told("consistent", capsys)
    told("", capsys)
    assert "consistent" not in api.comments[0]["body"]
    assert "nothing could be judged" in api.comments[0]["body"]


def test_a_long_summary_is_cut() -> None:
    text = comment_text("| row |\n" * 20_000, {})
    assert len(text) < 65_536
    assert text.endswith("| row |\n\nThe rest is in the step summary.")


@pytest.mark.parametrize("status", [401, 403, 404, 500])
def test_a_token_that_may_not_write_is_a_notice(
    status: int, api: GitHub, capsys: pytest.CaptureFixture[str]
) -> None:
    api.writing = status
    out = told("text", capsys)
    assert out.startswith(f"::notice::flatguard did not comment on the pull request: {status} ")
    assert (out.count("\n"), "secret" in out) == (1, False)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("GITHUB_REPOSITORY", "../../evil", "expected owner/name"),
        ("PULL_REQUEST", "7/../8", "expected a number"),
        ("PULL_REQUEST", "", "expected a number"),
        ("GITHUB_TOKEN", "", "no GITHUB_TOKEN"),
        ("GITHUB_API_URL", "http://127.0.0.1:9", "refused"),
        ("FLATGUARD_OFFLINE", "1", "forbids the network"),
    ],
)
def test_what_is_missing_is_a_notice(
    name: str,
    value: str,
    expected: str,
    api: GitHub,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(name, value)
    out = told("text", capsys)
    assert out.startswith("::notice::flatguard did not comment")
    assert expected in out
    assert api.comments == []
