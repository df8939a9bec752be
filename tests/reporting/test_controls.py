"""The findings by control: every check is mapped, editions are cited, and nothing is claimed."""

import re

from support.pages import Page
from support.reports import HOSTILE

from flatguard.checks.finding import Finding
from flatguard.checks.registry import check_names
from flatguard.reporting.controls import FRAMEWORKS, controls_page
from flatguard.reporting.judged_run import JudgedRun
from flatguard.reporting.text import visible
from flatguard.runs.run import Run

CONTROLS = [control for frame in FRAMEWORKS for control in frame.controls]


def test_every_check_is_mapped_and_every_mapped_check_exists() -> None:
    mapped = {name for control in CONTROLS for name in control.checks}
    assert mapped == set(check_names())


def test_the_items_that_auditors_name_are_there_with_their_editions() -> None:
    items = " ".join(control.item for control in CONTROLS)
    for item in ("Article 15(1)", "Article 15(5)", "24029-1:2021", "24029-2:2023", "MEASURE 2.7",
                 "ML01:2023"):  # fmt: skip
        assert item in items
    editions = " ".join(frame.edition for frame in FRAMEWORKS)
    for edition in ("(EU) 2024/1689", "TR 24029-1:2021", "AI 100-1", "2023 edition"):
        assert edition in editions


def test_it_claims_no_conformity(run: Run) -> None:
    text = Page(controls_page(JudgedRun.load(run))).text
    assert "It claims no conformity" in text
    assert not re.search(r"\b(compliant|complies|certified|meets the|fulfils?)\b", text)


def test_each_finding_is_shown_under_its_items_and_once_in_full(run: Run) -> None:
    judged = JudgedRun.load(run)
    text = Page(controls_page(judged)).text
    for finding in judged.verdict.findings:
        assert text.count(finding.check) >= 2
        assert finding.summary in text
    failed = [one.check for one in judged.verdict.findings if one.status == "fail"]
    assert failed
    assert "failed: " in text
    assert "not run: " in text


def test_a_check_of_another_package_is_shown_as_unmapped(run: Run) -> None:
    judged = JudgedRun.load(run)
    added = Finding(check="our-own", status="pass", summary="fine")
    verdict = judged.verdict.model_copy(update={"findings": (*judged.verdict.findings, added)})
    text = Page(controls_page(JudgedRun(run, verdict, judged.summary))).text
    assert "Mapped to no item: our-own." in text
    assert "Mapped to no item" not in Page(controls_page(judged)).text


def test_hostile_names_stay_text(hostile: Run) -> None:
    page = Page(controls_page(JudgedRun.load(hostile)))
    assert visible(HOSTILE.model) in page.text
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert "img" not in [tag for tag, _ in page.tags]
