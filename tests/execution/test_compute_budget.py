"""Budgets of forwards and minutes: they end a run as inconclusive, and what was done stays."""

from pathlib import Path
from typing import Any

import pytest
from support import digits
from support.failing import Interrupts

import flatguard
from flatguard.checks.verdict import verdict_of
from flatguard.errors import BudgetSpent, UsageError
from flatguard.evaluation import audit
from flatguard.execution.compute_budget import ComputeBudget, load_spent
from flatguard.request import Limits
from flatguard.runs.check_evidence import load_probes, price_of_checks

PGD = {"attack_args": {"steps": 20, "alpha": 0.02}, "eps": digits.EPS}
ATTACK = 200 * 20


def evaluated(files: Path, folder: str = "run", **fields: Any) -> flatguard.Run:
    return flatguard.evaluate(
        str(files / "digits.safetensors"), "torchattacks:PGD", data=str(files / "digits.npz"),
        arch=f"{digits.__file__}:digits_net", out=folder, **PGD, **fields,
    )  # fmt: skip


def test_one_forward_too_many() -> None:
    compute_budget = ComputeBudget(Limits(max_forwards=10))
    compute_budget.spend(10)
    with pytest.raises(BudgetSpent, match="budget of 10 forwards"):
        compute_budget.spend(1)


def test_an_attack_that_ends_midway_keeps_its_finished_blocks(digits_files: Path) -> None:
    run = evaluated(digits_files, batch_size=50, max_forwards=2500)
    assert not run.complete
    assert [block.plan.stop for block in run.blocks] == [50, 100]
    assert run.failures[0].budget
    assert run.failures[0].sample_forwards == 550  # the first call beyond 2,500 is the last
    assert len(run.failed_trajectory(2)) == 550
    assert run.request.limits.max_forwards == 2500
    verdict = verdict_of(run)
    assert (verdict.verdict, verdict.exit_code) == ("inconclusive", 3)
    assert "2,500 forwards (--max-forwards) was spent after 100 of 200 samples" in verdict.sentence
    assert set(load_probes(run)) == {"preflight"}
    whole = evaluated(digits_files, "whole", checks="none", batch_size=50)
    assert run.samples["robust"].equals(whole.samples["robust"].iloc[:100])


def test_checks_that_were_not_paid_for_are_not_run_and_can_be_run_later(
    digits_files: Path,
) -> None:
    run = evaluated(digits_files, max_forwards=ATTACK + 500)
    assert run.complete
    ran = {name: facts.ran for name, facts in load_probes(run).items()}
    assert ran["determinism"]
    assert not any(ran[name] for name in ("gradient-truth", "twins", "repeat", "noise"))
    verdict = verdict_of(run)
    assert verdict.verdict == "inconclusive"
    findings = {finding.check: finding for finding in verdict.findings}
    assert findings["discrepancy"].status == "not-run"
    assert "budget: the budget of 4,500 forwards" in findings["discrepancy"].summary
    assert audit(run, checks="fast", allow_code=True).verdict == "consistent"


def test_a_budget_that_ends_in_a_check_of_no_weight_is_no_pass_either(digits_files: Path) -> None:
    """All checks that a verdict needs have run, and a part of what was requested has not."""
    free = evaluated(digits_files, "free")
    price = price_of_checks(free)
    run = evaluated(digits_files, max_forwards=ATTACK + price - 1)
    assert not load_probes(run)["targeted-5"].ran
    assert verdict_of(run).verdict == "inconclusive"


def test_a_mask_that_was_seen_before_the_budget_ended_is_a_mask(digits_files: Path) -> None:
    free = evaluated(digits_files, "free", logit_scale=100.0)
    price = price_of_checks(free)
    run = evaluated(digits_files, max_forwards=ATTACK + price - 1, logit_scale=100.0)
    assert verdict_of(run).verdict == "masked"


def test_time(digits_files: Path) -> None:
    with pytest.raises(BudgetSpent, match="before the first 128 samples") as raised:
        evaluated(digits_files, max_minutes=1e-6)
    assert raised.value.exit_code == 3
    assert "the incomplete run, with what was recorded, is in run" in str(raised.value)
    assert len(flatguard.load_run("run").failed_trajectory(0)) == 128


@pytest.mark.parametrize("limits", [{"max_forwards": 0}, {"max_minutes": -1.0}])
def test_a_limit_is_positive(digits_files: Path, limits: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"--max-.*greater than"):
        evaluated(digits_files, **limits)


def test_what_was_spent_on_interrupted_blocks_counts_when_the_run_is_resumed(
    digits_files: Path,
) -> None:
    """Four blocks of 1,000 forwards; 550 and 300 more are lost to interruptions."""
    first, second, last = Interrupts(1500), Interrupts(250), Interrupts()
    with pytest.raises(KeyboardInterrupt):
        evaluated(digits_files, batch_size=50, max_forwards=ATTACK, checks="none", progress=first)
    assert load_spent(flatguard.load_run("run")) == 1550
    with pytest.raises(KeyboardInterrupt):
        flatguard.resume("run", allow_code=True, progress=second)
    assert load_spent(flatguard.load_run("run")) == 1850
    run = flatguard.resume("run", allow_code=True, progress=last)
    assert first.rows + second.rows + last.rows <= ATTACK + 50
    assert [block.plan.stop for block in run.blocks] == [50, 100, 150]
    assert verdict_of(run).verdict == "inconclusive"
    again = flatguard.resume("run", allow_code=True, progress=Interrupts())
    assert [block.plan.stop for block in again.blocks] == [50, 100, 150]


def test_without_its_file_only_the_evidence_counts(digits_files: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        evaluated(
            digits_files, batch_size=50, max_forwards=ATTACK, checks="none",
            progress=Interrupts(1500),
        )  # fmt: skip
    for content in (None, "{}", "no JSON", '{"forwards": -3}'):
        Path("run/spent.json").unlink(missing_ok=True)
        if content is not None:
            Path("run/spent.json").write_text(content)
        assert load_spent(flatguard.load_run("run")) == 1550
