"""The checks by one process and by two: wall time, and how evenly two workers share the work.

A run is attacked once; its checks are gathered from copies of it. Wall time says little where other
programs run. Processor time does not depend on them: the checks of two workers cannot end before
the starting process has done its own part and the busier worker has done its share, start included.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch

import flatguard
from benchmarks.masking_zoo.digits import TRAINING_IMAGES, DigitsNet, digits, fit, pgd_examples
from flatguard.execution.executors import Executor, InProcess, Processes
from flatguard.execution.origin import torch_threads

EPS = 0.1


@dataclass
class Taken:
    """What the checks took.

    Attributes:
        wall: seconds on the clock.
        own: processor seconds of this process.
        workers: processor seconds of each worker, by its number as a process.
    """

    wall: float = 0.0
    own: float = 0.0
    workers: dict[int, float] = field(default_factory=dict)

    @property
    def critical(self) -> float:
        """Processor seconds that no more workers would save."""
        return self.own + max(self.workers.values(), default=0.0)


def main() -> None:
    """Print both, and the ratios."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--batch", type=int, default=50)
    parser.add_argument("--checks", default="standard")
    given = parser.parse_args()
    model, (images, labels) = trained(), digits()
    data = (images[-given.images :], labels[-given.images :])
    with tempfile.TemporaryDirectory() as folder, torch_threads(1):
        attacked = flatguard.evaluate(
            model, "torchattacks:PGD", data=data, eps=EPS, batch_size=given.batch, threads=1,
            attack_args={"steps": 20}, checks="none", out=Path(folder, "attacked"),
        )  # fmt: skip
        found = []
        for executor in (InProcess(), Processes(2)):
            copy = Path(folder, type(executor).__name__)
            shutil.copytree(attacked.path, copy)
            found.append(taken(copy, model, data, given.checks, executor))
    one, two = found
    print(f"one process: {one.wall:.1f} s, {one.own:.1f} s of the processor")
    shares = ", ".join(f"{seconds:.1f}" for seconds in two.workers.values())
    print(f"two workers: {two.wall:.1f} s; processor: {two.own:.1f} s here, {shares} s in workers")
    print(
        f"speed-up: {one.wall / two.wall:.2f} by the clock, {one.own / two.critical:.2f} by the "
        "processor time of this process and the busier worker"
    )


def trained() -> torch.nn.Module:
    """A network for digits, trained with PGD for a short time."""
    torch.manual_seed(0)
    images, labels = digits()

    def perturb(net: torch.nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return pgd_examples(net, x, y, EPS, 5)

    return fit(
        DigitsNet(), images[:TRAINING_IMAGES], labels[:TRAINING_IMAGES], epochs=8, perturb=perturb
    )


def taken(
    folder: Path,
    model: torch.nn.Module,
    data: tuple[torch.Tensor, torch.Tensor],
    checks: str,
    executor: Executor,
) -> Taken:
    """Gather the checks of a run."""
    found, ended = Taken(), threading.Event()
    watcher = threading.Thread(target=_watch, args=(found.workers, ended), daemon=True)
    watcher.start()
    began, used = time.perf_counter(), time.process_time()
    flatguard.audit(folder, checks=checks, model=model, data=data, executor=executor)
    found.wall, found.own = time.perf_counter() - began, time.process_time() - used
    ended.set()
    watcher.join()
    return found


def _watch(workers: dict[int, float], ended: threading.Event) -> None:
    """Read the processor time of all children as long as they live; on Linux only."""
    if sys.platform != "linux":
        return
    tick = os.sysconf("SC_CLK_TCK")
    while not ended.wait(0.1):
        for child in multiprocessing.active_children():
            try:
                fields = Path(f"/proc/{child.pid}/stat").read_text("utf-8").rpartition(")")[2]
            except OSError:
                continue
            user, system = fields.split()[11:13]
            workers[child.pid or 0] = (int(user) + int(system)) / tick


if __name__ == "__main__":
    main()
