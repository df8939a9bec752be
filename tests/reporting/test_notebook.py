"""Runs and verdicts as a notebook shows them."""

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
from support.reports import SMALL

from benchmarks.synthetic import make_run
from flatguard.checks.verdict import verdict_of
from flatguard.reporting.text import between, percent
from flatguard.runs.run import Run, load_run


class Page(HTMLParser):
    """The text and the tags of HTML, as a browser reads them."""

    def __init__(self, html: str):
        super().__init__()
        self.text, self.tags, self.open = "", [], []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data

    @property
    def names(self) -> set[str]:
        return {tag for tag, _ in self.tags}


def test_a_run_shows_answer_numbers_and_figure(run: Run) -> None:
    page, verdict = Page(run._repr_html_()), verdict_of(run)
    assert page.open == []
    assert verdict.sentence in page.text
    for value, interval in (
        (verdict.robust_accuracy, run.summary["robust_interval"]),
        (verdict.corrected_robust_accuracy, verdict.corrected_interval),
        (run.summary["clean_accuracy"], run.summary["clean_interval"]),
    ):
        assert percent(value) in page.text
        assert between(interval) in page.text
    (label,) = [attrs["aria-label"] for tag, attrs in page.tags if tag == "svg"]
    assert label is not None
    assert f"corrected (upper bound) {percent(verdict.corrected_robust_accuracy)}" in label
    assert "script" not in page.names
    assert all(finding.summary in page.text for finding in verdict.findings)


def test_a_verdict_shows_itself_without_a_run(run: Run) -> None:
    verdict = verdict_of(run)
    page = Page(verdict._repr_html_())
    assert verdict.sentence in page.text
    assert between(verdict.corrected_interval) in page.text
    assert "svg" in page.names
    row = re.search(r"reported\s*\d[^\n]*?%\s*(\S+)", page.text)
    assert row is not None
    assert row[1].startswith("–")  # a verdict does not hold the interval of the reported number


def test_styles_hold_for_this_element_alone(run: Run) -> None:
    (style,) = re.findall("<style>(.*?)</style>", run._repr_html_(), flags=re.DOTALL)
    selectors = [one for rule in re.findall(r"([^{}]+)\{", style) for one in rule.split(",")]
    assert selectors
    assert all(one.strip().startswith(".flatguard") for one in selectors)


def test_hostile_names_are_text(hostile: Run) -> None:
    page = Page(hostile._repr_html_())
    assert not {"script", "img", "b"} & page.names
    assert "<script>document.title='owned'</script>" in page.text
    assert "\u202e" not in page.text


def test_a_run_that_is_not_judged_says_so(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", SMALL)
    page = Page(run._repr_html_())
    assert "3 of 3 blocks attacked, not judged yet" in page.text
    assert "%" not in page.text


@pytest.mark.parametrize(
    ("file", "content", "expected"),
    [
        ("verdict.json", "{", "verdict.json is damaged"),
        ("summary.json", "[]", "summary.json is damaged"),
        ("summary.json", "{}", "field n_examples is missing"),
    ],
)
def test_a_damaged_run_says_so(fresh: Run, file: str, content: str, expected: str) -> None:
    (fresh.path / file).write_text(content)
    assert expected in Page(load_run(fresh.path)._repr_html_()).text


def test_an_incomplete_run_says_so(fresh: Run) -> None:
    summary = json.loads((fresh.path / "summary.json").read_text())
    shutil.rmtree(next((fresh.path / "evidence" / "blocks").iterdir()))
    (fresh.path / "summary.json").write_text(json.dumps(summary))
    assert ", incomplete" in Page(load_run(fresh.path)._repr_html_()).text
