"""The summary for somebody who decides: question, answer, how sure, what to do."""

import pytest
from support.pages import Page
from support.reports import HOSTILE

from flatguard.reporting.audit_summary import summary_page
from flatguard.reporting.judged_run import JudgedRun
from flatguard.reporting.text import percent, visible
from flatguard.runs.run import Run


def text_of(judged: JudgedRun) -> str:
    return Page(summary_page(judged)).text


def test_it_answers_the_question(run: Run) -> None:
    judged = JudgedRun.load(run)
    verdict, text = judged.verdict, text_of(judged)
    for heading in ("Question", "Answer", "How sure", "What to do"):
        assert heading in text
    assert f"a robust accuracy of {percent(verdict.robust_accuracy)}" in text
    assert verdict.sentence in text
    assert all(step in text for step in verdict.next[:4])
    for facts in (run.manifest.target.weights_sha256, run.manifest.data.sha256):
        assert facts in text
    findings = [one.status for one in verdict.findings]
    assert f"Of {len(findings)} checks" in text
    assert f"{findings.count('not-run')} did not run" in text
    assert "upper bound" in text


def test_a_refuted_number_comes_with_its_overestimate(run: Run) -> None:
    judged = JudgedRun.load(run)
    assert judged.verdict.exit_code == 1
    assert f"too high by {percent(judged.verdict.overestimate)} of all images" in text_of(judged)
    assert "by the choice of the images alone" not in text_of(judged)


def test_a_supported_number_comes_with_the_chance_of_an_error(run: Run) -> None:
    judged = JudgedRun.load(run)
    passed = judged.verdict.model_copy(update={"verdict": "consistent"})
    text = text_of(JudgedRun(run, passed, judged.summary))
    rate = next(one for one in passed.error_rates if one.overestimate > passed.tolerance * 1.5)
    assert f"passes in {percent(rate.passes)} of cases" in text
    assert "The reported number is too high by" not in text


@pytest.mark.parametrize("complete", [True, False])
def test_an_incomplete_run_is_called_so(run: Run, complete: bool) -> None:
    opened = Run(run.storage, run.manifest)
    if not complete:
        opened.__dict__["blocks"] = run.blocks[:-1]
    judged = JudgedRun.load(run)
    text = text_of(JudgedRun(opened, judged.verdict, judged.summary))
    assert ("The run is incomplete" in text) is not complete


def test_hostile_names_stay_text(hostile: Run) -> None:
    page = Page(summary_page(JudgedRun.load(hostile)))
    assert visible(HOSTILE.model)[:30] in page.text
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert "img" not in [tag for tag, _ in page.tags]
