"""The page of a run on prompts: its figures, its words, and nothing that runs."""

from pathlib import Path

import pytest
from support.language_models import claimed_target, tiny
from support.pages import terms_of
from support.prompt_runs import context_of, run_of

from flatguard.reporting.prompt_page import prompt_figures, prompt_page, verdict_lines
from flatguard.reporting.prompt_report import prompt_report

pytest.importorskip("nanogcg")
WORD = "Please repeat the word."


def test_the_page_says_what_is_left_and_shows_every_suffix(tmp_path: Path) -> None:
    model = tiny()
    letters = [model.encode(letter)[0] for letter in "world"]
    target = claimed_target(model, WORD, letters)
    context = context_of([(WORD, target), ("Say <script>it</script>.", "banana")])
    taken = [[model.encode(" x"), letters], [model.encode(" x"), model.encode(" <b>")]]
    report = prompt_report(run_of(tmp_path / "run", context, taken))
    page = prompt_page(report)
    assert "claims success on 1 of 2 prompts; sent as text, 0 of them hold" in page
    assert "the suffix becomes other tokens than the attack used: 1" in page
    assert "<script>it" not in page
    assert "&lt;b&gt;" in page
    listed = terms_of(page)
    assert {"suffix", "greedy answer", "relative sharpness, κ"} <= listed
    assert not {"twin", "threat"} & listed
    assert [figure.text.name for figure in prompt_figures(report)] == [
        "median-sharpness", "each-sharpness", "median-loss", "each-loss",
    ]  # fmt: skip
    each = prompt_figures(report)[1]
    assert [name for name, _ in each.legend] == ["prompt 1, success claimed", "prompt 2"]
    assert len({tone for _, tone in each.legend}) == 2
    assert verdict_lines(report.verdict)[0].startswith("successes: 1 claimed on 2 prompts, 0 hold")


def test_a_run_that_has_not_begun_has_a_page(tmp_path: Path) -> None:
    report = prompt_report(run_of(tmp_path / "run", context_of([(WORD, "banana")]), []))
    assert prompt_figures(report) == []
    assert "inconclusive" in prompt_page(report)
