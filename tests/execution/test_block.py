"""A block whose attack raises, and samples on which the model raises."""

from pathlib import Path

import pytest
import torch
from support.architectures import tiny
from support.failing import OUT_OF_LUCK, PGD, Blind, FailsUnderAttack, Interrupts, Raises
from torch import nn

import flatguard
from flatguard.errors import AttackError, BudgetSpent, FlatguardError

Images = tuple[torch.Tensor, torch.Tensor]


@pytest.mark.parametrize("attack", ["torchattacks:PGD", "foolbox:LinfPGD", "apgd-ce"])
def test_an_attack_that_fails_in_the_only_block_is_readable(
    attack: str, tiny_data: Images, tmp_path: Path
) -> None:
    expected = r"failed: RuntimeError: out of luck; the incomplete run, .*, is in .*run$"
    with pytest.raises(AttackError, match=expected):
        flatguard.evaluate(
            FailsUnderAttack(7, OUT_OF_LUCK), attack, data=tiny_data, eps="8/255", norm="Linf",
            out=tmp_path / "run",
        )  # fmt: skip
    run = flatguard.load_run(tmp_path / "run")
    assert not run.complete
    assert run.blocks == []
    (failure,) = run.failures
    assert failure.error == f"{attack} failed: RuntimeError: out of luck"
    assert failure.plan == run.manifest.blocks[0]
    trajectory = run.failed_trajectory(0)
    assert len(trajectory) == failure.sample_forwards
    assert trajectory["call"].max() == failure.calls - 1
    attacked = trajectory[~trajectory["bookkeeping"]]
    assert attacked["call"].nunique() >= 6
    assert attacked["loss"].notna().all()
    assert not list((tmp_path / "run").rglob(".*"))  # nothing half-written


def test_an_interrupted_attack_is_readable(tiny_data: Images, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        flatguard.evaluate(
            FailsUnderAttack(3, KeyboardInterrupt()), "torchattacks:PGD", data=tiny_data,
            eps="1/255", out=tmp_path / "run",
        )  # fmt: skip
    run = flatguard.load_run(tmp_path / "run")
    assert [failure.error for failure in run.failures] == ["KeyboardInterrupt"]
    assert run.failed_trajectory(0)["call"].nunique() == 2


def test_an_attack_that_fails_at_its_first_call_leaves_nothing(
    tiny_data: Images, tmp_path: Path
) -> None:
    with pytest.raises(AttackError, match=r"out of luck$"):
        flatguard.evaluate(
            FailsUnderAttack(1, OUT_OF_LUCK), "torchattacks:PGD", data=tiny_data, eps="1/255",
            out=tmp_path / "run",
        )  # fmt: skip
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("under_attack", [False, True])
def test_a_sample_that_the_model_raises_on_is_counted_and_the_rest_goes_on(
    under_attack: bool, glaring: Images, tmp_path: Path
) -> None:
    model = Raises(under_attack).eval()
    run = flatguard.evaluate(
        model, "torchattacks:PGD", data=glaring, eps="1/255", batch_size=6, max_failures=2,
        out=tmp_path / "run", attack_args={"steps": 2, "random_start": False},
    )  # fmt: skip
    assert run.complete
    assert [f.sample for block in run.blocks for f in block.failures] == [3, 7]
    samples = run.samples
    assert samples.loc[samples["failed"], "sample"].tolist() == [3, 7]
    lost = samples[samples["failed"]]
    assert not lost[["clean_correct", "robust", "admissible"]].any(axis=None)
    assert lost[["clean_loss", "adv_loss", "clean_prediction", "distance"]].isna().all(axis=None)
    assert samples.loc[~samples["failed"], "clean_loss"].notna().all()
    assert sorted(run.trajectory["sample"].dropna().unique()) == [
        i for i in range(12) if i not in (3, 7)
    ]
    assert run.summary["n_examples"] == 12
    assert run.summary["failed"] == 2
    assert run.summary["outside_budget"] == 0
    assert any("sample 3 was not measured and counts as not robust" in w
               for w in run.summary["warnings"])  # fmt: skip
    assert (run.path / "report.html").is_file()
    assert flatguard.audit(run).robust_accuracy == samples["robust"].mean()


@pytest.mark.parametrize("batch_size", [1, 7])
def test_a_block_of_one_sample_may_fail_too(
    batch_size: int, glaring: Images, tmp_path: Path
) -> None:
    """At seven a block, samples 7 to 7 are the second of them."""
    model, data = Raises().eval(), (glaring[0][:8], glaring[1][:8])
    run = flatguard.evaluate(
        model, **PGD, data=data, batch_size=batch_size, max_failures=2, out=tmp_path / "run"
    )
    samples = run.samples
    assert samples.loc[samples["failed"], "sample"].tolist() == [3, 7]
    assert samples["robust"].dtype == bool
    assert torch.equal(run.adversarial(len(run.blocks) - 1)[-1], glaring[0][7])
    assert run.summary["failed"] == 2
    with pytest.raises(FlatguardError, match="cannot see"):
        flatguard.evaluate(
            model, **PGD, data=data, batch_size=batch_size, max_failures=1, out=tmp_path / "one"
        )


def test_what_is_left_is_attacked_as_if_the_others_were_not_there(
    glaring: Images, tmp_path: Path
) -> None:
    model = Raises().eval()
    run = flatguard.evaluate(
        model, **PGD, data=glaring, batch_size=12, max_failures=2, checks="none",
        out=tmp_path / "run",
    )  # fmt: skip
    keep = [i for i in range(12) if i not in (3, 7)]
    alone = flatguard.evaluate(
        model, **PGD, data=(glaring[0][keep], glaring[1][keep]), batch_size=12, checks="none",
        out=tmp_path / "alone",
    )  # fmt: skip
    assert torch.equal(run.adversarial(0)[keep], alone.adversarial(0))
    assert torch.equal(run.adversarial(0)[3], glaring[0][3])


def test_a_failure_that_no_sample_causes_is_raised(tiny_data: Images, tmp_path: Path) -> None:
    class Weary(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.calls = tiny(), 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.calls += x.requires_grad
            if self.calls == 2:
                raise RuntimeError("tired")
            return self.net(x)

    with pytest.raises(AttackError, match="tired"):
        flatguard.evaluate(
            Weary().eval(), **PGD, data=tiny_data, max_failures=5, out=tmp_path / "run"
        )
    (failure,) = flatguard.load_run(tmp_path / "run").failures
    assert "tired" in failure.error


@pytest.mark.parametrize("how", ["budget", "interrupt"])
def test_a_search_for_failing_samples_that_is_cut_short_keeps_the_blocks_recording(
    how: str, tiny_data: tuple[torch.Tensor, torch.Tensor]
) -> None:
    images, labels = tiny_data[0].clone(), tiny_data[1]
    images[:, 0, 0, 0] = 0.5
    images[7, 0, 0, 0] = 0.99  # bright enough once the attack has begun
    limits = {"max_forwards": 12 + 12 + 6} if how == "budget" else {}
    watcher = Interrupts() if how == "budget" else Interrupts(12 + 12 + 6)
    with pytest.raises(BudgetSpent if how == "budget" else KeyboardInterrupt):
        flatguard.evaluate(
            Blind().eval(), "torchattacks:PGD", data=(images, labels), eps="4/255", batch_size=12,
            attack_args={"steps": 4, "random_start": False}, max_failures=2, out="run",
            progress=watcher, **limits,
        )  # fmt: skip
    run = flatguard.load_run("run")
    (failure,) = run.failures
    assert failure.budget == (how == "budget")
    assert len(run.failed_trajectory(0)) == failure.sample_forwards > 0
