"""Checks by processes: the same bytes, also after an interrupt, and limits of all together."""

from pathlib import Path
from typing import Any

import pytest
from support import digits
from support.evidence_files import evidence_files

import flatguard
from flatguard.execution.compute_budget import load_spent
from flatguard.execution.executors import Processes
from flatguard.execution.progress import Silent
from flatguard.runs.check_evidence import load_probes

PGD = {"attack_args": {"steps": 20, "alpha": 0.02}, "eps": digits.EPS, "threads": 1}
BLOCK = 25


def evaluated(files: Path, folder: str, **fields: Any) -> flatguard.Run:
    return flatguard.evaluate(
        str(files / "digits.safetensors"), "torchattacks:PGD", data=str(files / "digits.npz"),
        arch=f"{digits.__file__}:slow_at_home_net", out=folder, batch_size=BLOCK, **PGD, **fields,
    )  # fmt: skip


class InterruptsChecks(Silent):
    """A person who ends the checks once some of them are done."""

    def __init__(self, after: int) -> None:
        self.left, self.is_checking = after, False

    def stage(
        self, name: str, total: int, calls_each: int | None = None, unit: str = "images"
    ) -> None:
        self.is_checking = name == "checks"

    def advanced(self, samples: int) -> None:
        if self.is_checking:
            self.left -= samples
            if self.left < 0:
                raise KeyboardInterrupt


def test_checks_of_an_interrupted_run_go_on_with_any_number_of_workers(
    digits_files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = evaluated(digits_files, "whole", n_examples=50)
    monkeypatch.setenv("SLOW_AT_HOME", "0.02")
    with pytest.raises(KeyboardInterrupt):
        evaluated(
            digits_files, "run", n_examples=50, executor=Processes(2),
            progress=InterruptsChecks(after=60),
        )  # fmt: skip
    assert "targeted-5" not in load_probes(flatguard.load_run("run"))
    run = flatguard.resume("run", allow_code=True, executor=Processes(3))
    assert evidence_files(run.path) == evidence_files(whole.path)


def test_four_workers_finish_the_blocks_that_a_budget_pays_for(digits_files: Path) -> None:
    """A block costs 500; the budget ends in the sixth of eight."""
    limit = 5 * 20 * BLOCK + 300
    run = evaluated(digits_files, "run", max_forwards=limit, executor=Processes(4))
    assert [block.plan.index for block in run.blocks] == [0, 1, 2, 3, 4]
    assert [failure.plan.index for failure in run.failures] == [5]
    assert limit < load_spent(run) <= limit + BLOCK  # the first call beyond it is the last
    alone = evaluated(digits_files, "alone", max_forwards=limit)
    assert {
        name: content
        for name, content in evidence_files(run.path).items()
        if "failed" not in name and "manifest" not in name
    } == {
        name: content
        for name, content in evidence_files(alone.path).items()
        if "failed" not in name and "manifest" not in name
    }


def test_minutes_end_all_workers(digits_files: Path) -> None:
    with pytest.raises(flatguard.FlatguardError, match=r"minutes \(--max-minutes\) was spent"):
        evaluated(digits_files, "run", max_minutes=1e-6, executor=Processes(2))
