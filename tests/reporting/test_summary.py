"""The summary of a judged run: its numbers, its warnings, and the file that holds them."""

import json

import pytest
import torch
from support.architectures import tiny
from torch import nn

import flatguard
from flatguard.checks.evidence import Evidence
from flatguard.checks.statistics import interval
from flatguard.checks.verdict import judge
from flatguard.reporting.summary import recorded_seconds, summarise, write_summary
from flatguard.runs.run import Run

Images = tuple[torch.Tensor, torch.Tensor]


class Fails(nn.Module):
    """Raises on one sample, and gives NaN for all others under attack."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = tiny()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if (x[:, 0, 0, 0] == 1.0).any():
            raise RuntimeError("cannot see")
        return self.net(x) * (float("nan") if x.requires_grad else 1.0)


@pytest.fixture
def run(tiny_data: Images) -> Run:
    images = tiny_data[0].clone().clamp(0.1, 0.9)
    images[3, 0, 0, 0] = 1.0
    return flatguard.evaluate(
        Fails().eval(), "torchattacks:PGD", data=(images, tiny_data[1]), eps="1/255",
        attack_args={"steps": 2, "random_start": False}, max_failures=1, checks="none",
    )  # fmt: skip


def test_the_numbers_are_those_of_the_tables(run: Run) -> None:
    verdict = judge(Evidence.of(run), 0.05)
    summary = summarise(run, verdict, 12.3456, None)
    samples = run.samples
    correct, robust = int(samples["clean_correct"].sum()), int(samples["robust"].sum())
    assert summary["n_examples"] == 12
    assert (summary["clean_accuracy"], summary["robust_accuracy"]) == (correct / 12, robust / 12)
    assert summary["clean_interval"] == interval(correct, 12)
    assert (summary["failed"], summary["outside_budget"]) == (1, 0)
    assert (summary["seconds"], summary["detection"]) == (12.346, None)
    assert (summary["verdict"], summary["sentence"]) == (verdict.verdict, verdict.sentence)
    assert summary["sample_forwards"] == sum(block.sample_forwards for block in run.blocks)


def test_failed_samples_and_nan_are_warnings(run: Run) -> None:
    failed, nan = sorted(run.summary["warnings"], key=lambda text: not text.startswith("sample"))
    assert failed.startswith("sample 3 was not measured and counts as not robust: ")
    assert nan == "the model gave NaN or infinite logits from call 0 on (samples 0 to 11)"


def test_what_is_written_is_read_and_may_be_lost(run: Run) -> None:
    assert recorded_seconds(run) == run.summary["seconds"] > 0
    write_summary(run, {**run.summary, "seconds": 77.5})
    assert recorded_seconds(run) == json.loads((run.path / "summary.json").read_text())["seconds"]
    assert run.summary["seconds"] == 77.5
    (run.path / "summary.json").write_text("no JSON")
    assert recorded_seconds(flatguard.load_run(run.path)) == run.seconds("attack")
