"""Paired comparisons, against scipy and by hand."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest
from support.reports import SMALL, judged

import flatguard
from flatguard.errors import UsageError
from flatguard.reporting.compare import _paired, compare_runs
from flatguard.runs.layout import committed
from flatguard.runs.run import Run, load_run


@pytest.fixture(scope="module")
def weaker(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The same run, whose probes were never run: nothing is corrected."""
    path = tmp_path_factory.mktemp("weaker") / "weaker"
    shutil.copytree(run.path, path)
    shutil.rmtree(path / "evidence" / "probes")
    flatguard.audit(path)
    return load_run(path)


def test_differences_are_paired_and_exact(run: Run, weaker: Run) -> None:
    found = compare_runs(weaker, run)
    clean, reported, corrected = found.accuracies
    assert (clean.difference, reported.difference) == (0.0, 0.0)
    assert clean.p_value == reported.p_value == 1.0
    lost = len(corrected.only_first)
    assert corrected.only_second == ()
    assert corrected.difference == pytest.approx(-lost / 60)
    assert corrected.p_value == pytest.approx(binomtest(lost, lost, 0.5).pvalue)
    assert corrected.interval[0] < corrected.difference < corrected.interval[1] < 0
    verdict = flatguard.audit(run)
    assert corrected.second == pytest.approx(verdict.corrected_robust_accuracy)


def test_by_check_and_by_value(run: Run, weaker: Run) -> None:
    found = compare_runs(weaker, run)
    changed = {pair.check: (pair.first, pair.second) for pair in found.checks if pair.changed}
    assert changed["discrepancy"] == ("not-run", "fail")
    assert all(shift.rose == shift.fell == 0 for shift in found.shifts)
    assert found.settings == ()


def test_no_difference_in_few_samples_is_no_proof_of_none() -> None:
    same = np.ones(20, bool)
    low, high = _paired("x", same, same).interval
    assert low < -0.1
    assert high > 0.1


def test_the_interval_covers_the_truth() -> None:
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(300):
        draw = rng.random(80)
        first, second = draw < 0.6, (draw < 0.5) | (draw > 0.97)
        low, high = _paired("x", first, second).interval
        inside += low <= -0.07 <= high
    assert inside >= 0.95 * 300


def test_other_data_are_refused(run: Run, tmp_path: Path) -> None:
    other = judged(tmp_path / "other", seed=1)
    with pytest.raises(UsageError, match=r"are over different data .*hash"):
        compare_runs(run, other)
    fewer = judged(tmp_path / "fewer", replace(SMALL, samples=50))
    with pytest.raises(UsageError, match=r"60 samples of noise against 50 of noise"):
        compare_runs(run, fewer)


def test_an_incomplete_run_is_refused(run: Run, fresh: Run) -> None:
    shutil.rmtree(committed(fresh.path)[2])
    with pytest.raises(UsageError, match="incomplete: 2 of 3 blocks; to finish it: "):
        compare_runs(run, load_run(fresh.path))


def test_json_is_what_was_compared(run: Run, weaker: Run) -> None:
    found = compare_runs(run, weaker)
    assert json.loads(found.model_dump_json())["samples"] == 60
