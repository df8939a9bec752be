"""The summary for somebody who decides: question, answer, how sure, what to do."""

import pytest
from support.pages import Page
from support.reports import HOSTILE

from flatguard.checks.mechanism import Explanation
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


def long_judged(run: Run, reason: str, *steps: str) -> JudgedRun:
    """The run with one reason, and with these steps."""
    judged = JudgedRun.load(run)
    why = Explanation(
        mechanism="saturation", condition=reason, found=9, missed=9, interval=(0.6, 1.0),
        confidence="high",
    )  # fmt: skip
    verdict = judged.verdict.model_copy(update={"explanations": (why,), "next": steps})
    return JudgedRun(run, verdict, judged.summary)


def test_no_sentence_is_cut(run: Run) -> None:
    """One that is longer than a line is there as a whole; what has no room is counted."""
    reason, step = "a condition of many words " * 8, "a step of many words " * 9
    judged = long_judged(run, reason.strip(), step.strip(), "a short one")
    page = Page(summary_page(judged))
    assert judged.verdict.explanations[0].sentence in page.text
    assert all(text in page.text for text in judged.verdict.next)
    assert "further" not in page.text
    assert "…" not in page.text


def test_what_has_no_room_is_counted(run: Run) -> None:
    steps = [f"step {number} of many words{' and more' * 20}" for number in range(6)]
    text = text_of(long_judged(run, "a condition", *steps))
    kept = [step for step in steps if step in text]
    assert kept == steps[: len(kept)]
    assert 0 < len(kept) < 4
    assert f"{6 - len(kept)} further steps: see report.html" in text
    assert "…" not in text


def test_the_first_step_comes_before_a_reason_that_is_too_long(run: Run) -> None:
    text = text_of(long_judged(run, "word " * 250, "do this"))
    assert "do this" in text
    assert "1 further reason: see report.html" in text
    assert "word word" not in text
