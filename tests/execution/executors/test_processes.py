"""Workers that die, and models that cannot be sent."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from support.architectures import tiny
from support.evidence_files import evidence_files
from support.failing import PGD
from support.listeners import Listener
from support.tasks import WhoAmI
from torch import nn

import flatguard
from flatguard.errors import FlatguardError
from flatguard.execution.compute_budget import ComputeBudget
from flatguard.execution.executors import Crew, Processes, Workers
from flatguard.execution.origin import origin_of
from flatguard.execution.reopening import reopen
from flatguard.request import NO_LIMITS

TESTS = Path(__file__).parents[2]
Images = tuple[torch.Tensor, torch.Tensor]


def test_a_worker_that_dies_is_replaced(tmp_path: Path) -> None:
    code = """
import sys
import time
from pathlib import Path
import torch, flatguard
from flatguard.execution.executors import Executor, InProcess, Processes
from flatguard.execution.progress import Silent
from support.failing import PGD, Dies
if __name__ == "__main__":
    out = Path(sys.argv[1])
    images = torch.rand(12, 3, 8, 8, generator=torch.Generator().manual_seed(7))
    options = {**PGD, "data": (images, torch.arange(12) % 4), "batch_size": 4, "checks": "none"}
    mark = out.parent / "mark"
    flatguard.evaluate(Dies(mark).eval(), **options, out=out)
    mark.touch()
    again = out.parent / "again"
    done = flatguard.evaluate(Dies(mark).eval(), **options, out=again, executor=Processes(1))
    print(done.complete)
"""
    script = tmp_path / "main.py"
    script.write_text(code)
    done = subprocess.run(
        [sys.executable, script, tmp_path / "out"], capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path])},
    )  # fmt: skip
    assert done.stdout.split()[-1] == "True", done.stderr
    assert not (tmp_path / "mark").exists()
    assert evidence_files(tmp_path / "again") == evidence_files(tmp_path / "out")


def test_a_model_that_cannot_be_sent(tiny_data: Images, tmp_path: Path) -> None:
    class Local(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = tiny()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.net(x)

    with pytest.raises(FlatguardError, match="cannot be sent to other processes"):
        flatguard.evaluate(
            Local().eval(), **PGD, data=tiny_data, executor=Processes(2), out=tmp_path / "run"
        )


def crew_of(data: Images, out: Path, listener: Listener) -> Crew:
    """Workers for the checks of a small run."""
    model = tiny().eval()
    run = flatguard.evaluate(model, **PGD, data=data, checks="none", out=out)
    context, budget = reopen(run, origin_of(model, data)), ComputeBudget(NO_LIMITS)
    return Crew(context, run, listener, budget, starter_works=True)


class TestWithTheProcessThatStartsThem:
    """Two workers that gather evidence are this process and another one."""

    @pytest.fixture
    def listener(self) -> Listener:
        return Listener()

    @pytest.fixture
    def workers(self, tiny_data: Images, tmp_path: Path, listener: Listener) -> Iterator[Workers]:
        with Processes(2).start(crew_of(tiny_data, tmp_path / "run", listener)) as workers:
            assert workers is not None
            yield workers

    def test_it_takes_back_what_waits(self, workers: Workers) -> None:
        tasks = [WhoAmI(number) for number in range(4)]
        for task in tasks:
            workers.submit(task)
        assert workers.leaves_work
        assert workers.take_back() is tasks[3]
        deadline = time.monotonic() + 120
        while workers.leaves_work and time.monotonic() < deadline:  # as while it gathers a part
            time.sleep(0.05)
        while workers.take_back() and time.monotonic() < deadline:
            time.sleep(0.05)
        done = [workers.next() for _ in range(workers.busy)]
        assert done[0].task is tasks[0]
        assert {os.getpid()}.isdisjoint(finished.result for finished in done)
        assert len({finished.result for finished in done}) == 1
        assert (workers.busy, workers.take_back()) == (0, None)

    def test_the_other_is_replaced_where_it_dies_without_a_task(
        self, workers: Workers, listener: Listener
    ) -> None:
        workers.submit(WhoAmI(0))
        first = workers.next().result
        os.kill(first, signal.SIGKILL)
        deadline = time.monotonic() + 120
        while not listener.lines and time.monotonic() < deadline:
            time.sleep(0.2)  # the pool's own thread has to see it
            workers.submit(WhoAmI(1))
            found = workers.next()
        assert listener.lines == ["a worker died; what it did not finish is done again"]
        assert found.result not in (first, os.getpid())


def test_one_worker_that_gathers_is_this_process(tiny_data: Images, tmp_path: Path) -> None:
    with Processes(1).start(crew_of(tiny_data, tmp_path / "run", Listener())) as workers:
        assert workers is None
