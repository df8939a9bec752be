"""A progress reporter receives every stage with its size, and all that is done of it."""

import torch
from support.architectures import tiny
from support.failing import PGD

import flatguard
from flatguard.execution.progress import ProgressReporter, Silent


class Counter(Silent):
    """Adds up what it receives, stage by stage."""

    def __init__(self) -> None:
        self.stages: list[list[object]] = []
        self.rows = 0

    def stage(self, name: str, total: int, calls_each: int | None = None) -> None:
        self.stages.append([name, total, calls_each, 0])

    def advanced(self, samples: int) -> None:
        done = self.stages[-1]
        done[3] = int(str(done[3])) + samples

    def called(self, rows: int) -> None:
        self.rows += rows


def test_stages_end_with_all_samples_done(tiny_data: tuple[torch.Tensor, torch.Tensor]) -> None:
    counter = Counter()
    run = flatguard.evaluate(
        tiny().eval(), **PGD, data=tiny_data, batch_size=5, checks="none", progress=counter
    )
    assert counter.stages == [
        ["read the data", 12, None, 12],
        ["preflight", 1, None, 1],
        ["attack torchattacks:PGD", 12, counter.stages[2][2], 12],
    ]
    assert counter.rows == sum(block.sample_forwards for block in run.blocks)


def test_silence() -> None:
    silent: ProgressReporter = Silent()
    silent.log("unread")
    silent.stage("anything", 3)
    silent.advanced(3)
    silent.called(3)
