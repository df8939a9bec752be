"""Reports of real runs that lack something: a radius, a head, blocks, survivors."""

import json
from pathlib import Path

import pytest
import torch
from support.architectures import tiny
from support.pages import evaluated, section_data
from torch import Tensor, nn

import flatguard
from flatguard.errors import FlatguardError
from flatguard.reporting.report import report_files, write_report
from flatguard.runs.run import load_run


def test_nothing_right_and_nothing_judged(tiny_data: tuple[Tensor, Tensor]) -> None:
    torch.manual_seed(0)
    model = tiny().eval()
    with torch.no_grad():
        wrong = (model(tiny_data[0]).argmax(1) + 1) % 4
    how = {"eps": "8/255", "attack_args": {"steps": 2}, "checks": "none"}
    run = evaluated((tiny_data[0], wrong), "torchattacks:PGD", model, **how)
    for name in ("along-the-attack", "where-samples-ended", "other-logits", "discrepancy"):
        assert section_data(run, name)["measured"] is False
    assert section_data(run, "samples")["measured"]


class Breaks(nn.Module):
    """Raises at a late call, as a full card does."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.calls = tiny(), 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        if self.calls > 14:
            raise RuntimeError("out of memory")
        logits: Tensor = self.net(x)
        return logits


def test_an_incomplete_run_is_named(tiny_data: tuple[Tensor, Tensor]) -> None:
    with pytest.raises(FlatguardError, match="out of memory"):
        evaluated(
            tiny_data, "torchattacks:PGD", Breaks(), eps="8/255", attack_args={"steps": 3},
            batch_size=5,
        )  # fmt: skip
    run = load_run(Path("run"))
    assert not run.complete
    assert run.blocks
    flatguard.audit(run)
    write_report(run)
    assert "incomplete" in report_files(run).html.read_text("utf-8")
    assert json.loads(report_files(run).json.read_text("utf-8"))["complete"] is False
