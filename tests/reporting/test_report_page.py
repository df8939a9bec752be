"""The page of a run: what it shows, what it forbids, and what it does to hostile names."""

import re
from dataclasses import replace

import pytest
from support.pages import page_of
from support.reports import HOSTILE

from flatguard.checks.verdict import verdict_of
from flatguard.reporting.judged_run import JudgedRun
from flatguard.reporting.report import report_files
from flatguard.reporting.report_page import headlines, report_page
from flatguard.reporting.sections.section import Sections
from flatguard.reporting.text import visible
from flatguard.runs.run import Run


def test_a_tolerated_failure_is_not_called_support(run: Run) -> None:
    judged_run, nothing = JudgedRun.load(run), Sections((), ())
    passed = tuple(f for f in judged_run.verdict.findings if f.status != "fail")
    texts = []
    for findings in (passed, judged_run.verdict.findings):
        update = {"verdict": "consistent", "findings": findings}
        verdict = judged_run.verdict.model_copy(update=update)
        texts.append(report_page(replace(judged_run, verdict=verdict), nothing))
    assert "is supported by the evidence" in texts[0]
    assert "is supported by the evidence" not in texts[1]
    assert "Cite the corrected number" in texts[1]


def test_the_headlines_are_the_verdicts_numbers(run: Run) -> None:
    judged_run = JudgedRun.load(run)
    reported, corrected, overestimate, clean = headlines(judged_run)
    verdict = judged_run.verdict
    assert reported.share - corrected.share == pytest.approx(overestimate.share)
    assert corrected.interval == verdict.corrected_interval
    assert (clean.share, reported.share) == (1.0, verdict.robust_accuracy)


def test_the_verdict_is_the_judges(run: Run) -> None:
    verdict = verdict_of(run)
    text = page_of(run).text
    assert verdict.sentence in text
    assert f"{verdict.corrected_robust_accuracy:.1%}" in text
    for finding in verdict.findings:
        assert " ".join(finding.summary.split()) in text
    unrun = [finding.check for finding in verdict.findings if finding.status == "not-run"]
    assert unrun
    assert f"{len(unrun)} checks did not run" in text


def test_the_page_asks_for_nothing_and_forbids_the_rest(run: Run) -> None:
    page = page_of(run)
    policy = next(a["content"] for t, a in page.tags if t == "meta" and "http-equiv" in a)
    assert policy is not None
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert "unsafe" not in policy
    for tag, attrs in page.tags:
        assert "style" not in attrs, tag
        assert not any(name.startswith("on") for name in attrs), tag
        source = attrs.get("src") or attrs.get("href") or "#"
        assert source.startswith(("#", "data:image/")), source
    assert sum(tag == "script" for tag, _ in page.tags) == 1


def test_every_figure_has_words_and_numbers(run: Run) -> None:
    text = report_files(run).html.read_text("utf-8")
    figures = re.findall(r"<figure.*?</figure>", text, flags=re.DOTALL)
    assert len(figures) == 10
    for figure in figures:
        assert re.search(r'<svg [^>]*role="img" aria-label="[^"]{20,}"', figure)
        assert "<table>" in figure


def test_hostile_names_are_text_in_the_page(hostile: Run) -> None:
    page = page_of(hostile)
    assert sum(tag == "script" for tag, _ in page.tags) == 1
    assert not [tag for tag, attrs in page.tags if any(name.startswith("on") for name in attrs)]
    text = page.text
    assert visible(HOSTILE.model) in text
    assert visible(HOSTILE.classes[0]) in text
    whole = report_files(hostile).html.read_text("utf-8")
    assert not re.search("[\u202a-\u202e\u2066-\u2069\u0000\u0007]", whole)
    assert "\\u202egnp.exe" in text
