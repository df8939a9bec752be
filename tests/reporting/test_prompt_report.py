"""The report of a run on prompts holds its numbers, and can be drawn again without the model."""

import json
from pathlib import Path
from statistics import median

import pytest
from support.language_models import tiny
from support.prompt_runs import context_of, run_of

from flatguard.reporting.prompt_report import PAGE, REPORT, prompt_report, write_prompt_report
from flatguard.runs.prompt_run import PromptRun

pytest.importorskip("nanogcg")
WORDS = (" x", " world", " hello", " answer")


def run(folder: Path, prompts: int) -> PromptRun:
    """Each prompt accepts the same words, from another one on."""
    model = tiny()
    texts = [("Say it.", "Sure"), ("Repeat it.", "banana"), ("Name it.", "yes"), ("Ask.", "hello")]
    pairs = [(f"{n}: {prompt}", target) for n in range(2) for prompt, target in texts][:prompts]
    taken = [[model.encode(WORDS[(n + i) % 4]) for i in range(4)] for n in range(prompts)]
    return run_of(folder, context_of(pairs, steps=3), taken)


def test_paths_hold_what_was_recorded(tmp_path: Path) -> None:
    found = run(tmp_path / "run", 2)
    report = prompt_report(found)
    for path, steps in zip(report.paths, found.steps, strict=True):
        taken = [one.accepted for one in steps]
        assert path.loss == tuple(one.loss for one in taken)
        kappa = [one.log_mean_kappa for one in taken]
        assert path.log_kappa == tuple(kappa)
        assert kappa[path.peak] == max(kappa)
        assert kappa[path.valley] == min(kappa[path.peak :])
        assert path.suffixes == tuple(one.text for one in taken)
    assert report.median_log_kappa is not None
    assert report.median_log_kappa.interval is None  # two prompts have no interval of a median
    assert report.forwards == 8


def test_the_median_has_its_interval_from_six_prompts_on(tmp_path: Path) -> None:
    report = prompt_report(run(tmp_path / "run", 7))
    path = report.median_loss
    assert path is not None
    assert path.interval is not None
    for step, (low, high) in enumerate(path.interval):
        column = [one.loss[step] for one in report.paths]
        assert path.median[step] == median(column)
        assert low <= path.median[step] <= high


def test_an_unfinished_prompt_is_in_no_median(tmp_path: Path) -> None:
    model = tiny()
    context = context_of([("Say it.", "Sure"), ("Repeat it.", "banana")], steps=1)
    found = run_of(
        tmp_path / "run", context, [[model.encode(" x"), model.encode(" y")], [model.encode(" x")]]
    )
    report = prompt_report(found)
    assert len(report.paths) == 2
    assert report.median_loss is not None
    assert report.median_loss.prompts == 1


def test_page_and_json_are_written_and_can_be_made_again(tmp_path: Path) -> None:
    found = run(tmp_path / "run", 2)
    written = write_prompt_report(found)
    page = (found.path / PAGE).read_text("utf-8")
    assert json.loads((found.path / REPORT).read_text()) == json.loads(written.model_dump_json())
    (found.path / PAGE).unlink()
    write_prompt_report(found)
    assert (found.path / PAGE).read_text("utf-8") == page
