"""What `flatguard evaluate` prints for a person."""

import re
from pathlib import Path

import pytest
import torch
from support.architectures import tiny
from support.commands import CHECKPOINT, JUDGED, PGD
from support.evidence import judged_by
from support.reports import judged

import flatguard
from flatguard.checks.verdict import judge
from flatguard.cli.answer import _sharpness, decision_line


def test_the_answer_for_a_person(cli, files: Path) -> None:
    result = cli(*CHECKPOINT, *PGD, "--out", "run")
    assert result.code in JUDGED
    lines = result.out.splitlines()
    assert "12 of 12 images from data.npz; torchattacks:PGD within Linf 8/255" in lines[0]
    for words in ("clean accuracy", "robust accuracy, Linf 8/255", "95% interval", "median log κ"):
        assert words in result.out
    assert lines[-2:] == ["what the terms mean: run/report.html#terms", "run/report.html"]
    assert flatguard.load_run("run").complete


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (-1.0, "(flatter by a factor 2.7)"), (1.0, "(sharper by a factor 2.7)"),
        (0.01, "(as sharp)"), (23.1, "(sharper by a factor 10^10)"),
    ],
)  # fmt: skip
def test_the_change_of_sharpness_in_words(tmp_path: Path, change: float, words: str) -> None:
    summary = {"median_log_kappa_clean": 2.0, "median_log_kappa_adversarial": 2.0 + change}
    assert _sharpness(judged(tmp_path / "run"), summary).endswith(words)


def test_deeper_layers_end_the_answer(cli, files: Path) -> None:
    result = cli(*CHECKPOINT, *PGD, "--layers", "2", "--layer-samples", "2", "--out", "run")
    assert result.code in JUDGED
    assert "median κ of 2 samples, estimated ± standard error" in result.out
    lines = result.out.splitlines()
    head = next(line for line in lines if line.startswith("head  model.3"))
    before = lines[lines.index(head) + 1]  # the network has one layer before its head
    assert before.startswith("l-1   model.1")
    assert " clean → " in before
    assert before.count(" ± ") == 2


def test_a_model_in_training_mode_is_reported(cli, files: Path) -> None:
    torch.save(tiny().train(), files / "whole.pt")
    result = cli("evaluate", "--model", "whole.pt", "--allow-code", "--dataset", "data.npz", *PGD)
    assert result.code in JUDGED
    assert "it is evaluated in eval mode" in result.out


def test_without_a_head_logit_sharpness_is_reported(cli, files: Path) -> None:
    torch.save(torch.nn.Sequential(tiny(), torch.nn.Softmax(1)).eval(), files / "soft.pt")
    result = cli("evaluate", "--model", "soft.pt", "--allow-code", "--dataset", "data.npz", *PGD)
    assert result.code in JUDGED
    assert "κ is not measured: the model's output is not that of its layer '0.3'" in result.out
    assert "median log κ" not in result.out
    line = next(row for row in result.out.splitlines() if row.startswith("median log logit"))
    assert re.fullmatch(r"median log logit sharpness +-?\d.* clean → -?\d.* adversarial .*", line)


def test_scaled_logits_are_reported(cli, files: Path) -> None:
    result = cli(*CHECKPOINT, *PGD, "--logit-scale", "100")
    assert "logits × 100" in result.out


def test_what_a_pass_is_worth() -> None:
    held = judge(judged_by(n=100, survivors=range(60)))
    assert decision_line(held, 100) == (
        "on 100 images a true overestimate of 10.0% would pass with a chance of 5.8%"
    )
    refuted = judge(judged_by({"control": range(20)}, n=100, survivors=range(60)))
    assert decision_line(refuted, 100) is None
    assert decision_line(judge(judged_by(n=100, survivors=[])), 100) is None
    assert decision_line(judge(judged_by(n=100, survivors=range(60)), 0.0), 100) is None
