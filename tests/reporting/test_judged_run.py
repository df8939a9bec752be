"""Only a run with a verdict of its own is reported."""

import shutil
from pathlib import Path

import pytest
from support.reports import judged

import flatguard
from flatguard.errors import RunFolderError
from flatguard.reporting.judged_run import JudgedRun
from flatguard.reporting.report import write_report
from flatguard.runs.run import Run, load_run


def test_classes_are_shown_by_name_and_number(run: Run) -> None:
    judged_run = JudgedRun.load(run)
    assert judged_run.class_name(1) == "b (1)"
    assert judged_run.class_name(99) == "class 99"
    assert judged_run.class_name(-1) == "class -1"


def test_an_unjudged_run_is_refused_with_the_command_that_judges_it(fresh: Run) -> None:
    (fresh.path / "verdict.json").unlink()
    with pytest.raises(RunFolderError, match="has no verdict yet; flatguard audit"):
        write_report(load_run(fresh.path))
    flatguard.audit(fresh.path)
    (fresh.path / "summary.json").write_text("{}")
    with pytest.raises(RunFolderError, match=r"n_examples is missing.*: flatguard audit"):
        write_report(load_run(fresh.path))


@pytest.mark.parametrize("file", ["verdict.json", "summary.json"])
def test_another_runs_verdict_is_refused(fresh: Run, tmp_path: Path, file: str) -> None:
    other = judged(tmp_path / "other", seed=1)
    shutil.copy(other.path / file, fresh.path / file)
    with pytest.raises(RunFolderError, match=r"not made from this run's evidence.*flatguard audit"):
        write_report(load_run(fresh.path))
