"""What is logged: everything that was measured, and nothing else."""

import math
from pathlib import Path

import pytest
from support.reports import HOSTILE, judged

import flatguard
from flatguard.checks.verdict import verdict_of
from flatguard.errors import RunFolderError
from flatguard.integrations.logged_run import LoggedRun
from flatguard.runs.run import Run, load_run


def test_numbers_have_their_intervals(run: Run) -> None:
    logged, verdict = LoggedRun.of(run), verdict_of(run)
    low, high = verdict.corrected_interval
    assert logged.metrics["corrected_robust_accuracy"] == verdict.corrected_robust_accuracy
    assert logged.metrics["corrected_robust_accuracy_low"] == low
    assert logged.metrics["corrected_robust_accuracy_high"] == high
    assert logged.metrics["robust_accuracy"] == verdict.robust_accuracy
    assert logged.metrics["clean_accuracy"] == run.summary["clean_accuracy"]
    assert logged.metrics["sample_forwards"] == run.summary["sample_forwards"] > 0
    assert logged.tags["verdict"] == verdict.verdict
    assert logged.tags["sentence"] == verdict.sentence


def test_what_was_not_measured_is_left_out(run: Run) -> None:
    logged, verdict = LoggedRun.of(run), verdict_of(run)
    assert run.summary["median_log_logit_sharpness_clean"] is None
    assert "median_log_logit_sharpness_clean" not in logged.metrics
    unmeasured = {f.check for f in verdict.findings if f.value is None or f.status == "not-run"}
    assert unmeasured
    assert not {f"measured/{name}" for name in unmeasured} & set(logged.metrics)
    not_run = {f.check for f in verdict.findings if f.status == "not-run"}
    assert {logged.tags[f"check/{name}"] for name in not_run} == {"not-run"}
    assert all(math.isfinite(value) for value in logged.metrics.values())


def test_parameters_are_the_resolved_request(run: Run) -> None:
    parameters = LoggedRun.of(run).parameters
    assert parameters["attack"] == "torchattacks:PGD"
    assert (parameters["norm"], parameters["eps"], parameters["seed"]) == ("Linf", "8/255", 0)
    assert parameters["attack_args.steps"] == run.manifest.attack_args["steps"]
    assert "head" not in parameters
    assert "log_to" not in parameters


def test_the_report_is_among_the_files(run: Run) -> None:
    names = {file.name for file in LoggedRun.of(run).files}
    assert {"report.html", "report.json", "report.junit.xml", "report.md"} <= names
    (run.path / "report.html").unlink()
    assert "report.html" not in {file.name for file in LoggedRun.of(run).files}


def test_a_run_keeps_its_key_and_others_have_another(run: Run, other: Run) -> None:
    first, second = LoggedRun.of(run), LoggedRun.of(other)
    flatguard.audit(run, tolerance=0.5)
    assert LoggedRun.of(load_run(run.path)).key == first.key != second.key
    assert first.prefix_beside(None) == first.prefix_beside(first.key) == "flatguard"
    assert first.prefix_beside(second.key) == f"flatguard/first-{first.key[:8]}"


def test_hostile_names_are_visible(tmp_path: Path) -> None:
    logged = LoggedRun.of(judged(tmp_path / "a<b>&'run'", names=HOSTILE))
    assert "\u202e" not in str(logged.parameters["model"])
    assert "\\u202e" in str(logged.parameters["model"])
    assert logged.prefix_beside("x").startswith("flatguard/a-b-run-")


def test_a_run_without_a_verdict_is_refused(run: Run) -> None:
    (run.path / "verdict.json").unlink()
    with pytest.raises(RunFolderError, match="has no verdict yet"):
        LoggedRun.of(run)
