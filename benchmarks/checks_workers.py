"""The checks by one process and by two workers, in turns: time by the clock and of the processor.

A run is attacked once; its checks are gathered from copies of it. The second worker's start counts.
Two processes that gather all checks twice, side by side and with nothing in common, show what the
machine itself allows: cores that share memory and caches are slower together than alone.
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
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path
from statistics import mean, median

import torch

import flatguard
from benchmarks.masking_zoo import networks
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


@dataclass(frozen=True)
class Turn:
    """One process, two workers, and the mean of two processes that do the whole, side by side."""

    one: Taken
    two: Taken
    each: float

    @property
    def speed_up(self) -> float:
        """Of the workers."""
        return self.one.wall / self.two.wall

    @property
    def ceiling(self) -> float:
        """The speed-up of two processes that have nothing in common."""
        return 2 * self.one.wall / self.each

    def __str__(self) -> str:
        elsewhere = sum(self.two.workers.values())
        return (
            f"one process {self.one.wall:.1f} s ({self.one.own:.1f} s of the processor), two "
            f"workers {self.two.wall:.1f} s ({self.two.own:.1f} s here, {elsewhere:.1f} s "
            f"elsewhere), two side by side {self.each:.1f} s each"
        )


@dataclass(frozen=True)
class Ask:
    """What is checked: a model, its images and labels, and the level."""

    model: torch.nn.Module
    data: tuple[torch.Tensor, torch.Tensor]
    checks: str


def main() -> None:
    """Print both, and the ratios."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--network", help="of the masking zoo; else a small one for digits")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--batch", type=int, default=50)
    parser.add_argument("--checks", default="standard")
    parser.add_argument("--turns", type=int, default=3)
    given = parser.parse_args()
    model, data, eps = subject(given.network, given.images)
    with tempfile.TemporaryDirectory() as folder, torch_threads(1):
        attacked = flatguard.evaluate(
            model, "torchattacks:PGD", data=data, eps=eps, batch_size=given.batch, threads=1,
            attack_args={"steps": 20}, checks="none", out=Path(folder, "attacked"),
        )  # fmt: skip
        turns = []
        for number in range(given.turns):
            copies = [Path(folder, f"{number}-{copy}") for copy in range(4)]
            for copy in copies:
                shutil.copytree(attacked.path, copy)
            ask = Ask(model, data, given.checks)
            one = taken(copies[0], ask, InProcess())
            two = taken(copies[1], ask, Processes(2))
            turns.append(Turn(one, two, side_by_side(copies[2:], ask)))
    for turn in turns:
        print(turn)
    print(f"speed-up by two workers: {spread([turn.speed_up for turn in turns])}")
    print(f"two processes side by side: {spread([turn.ceiling for turn in turns])}")


def spread(ratios: list[float]) -> str:
    """Their median, the least and the greatest."""
    return f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def subject(
    network: str | None, count: int
) -> tuple[torch.nn.Module, tuple[torch.Tensor, torch.Tensor], float]:
    """A network, images that it was not trained on with their labels, and the radius."""
    if network is None:
        images, labels = digits()
        return trained(), (images[-count:], labels[-count:]), EPS
    found = networks.load(network)
    return found.module, (found.images[:count], found.labels[:count]), found.eps


def trained() -> torch.nn.Module:
    """A network for digits, trained with PGD for a short time."""
    torch.manual_seed(0)
    images, labels = digits()

    def perturb(net: torch.nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return pgd_examples(net, x, y, EPS, 5)

    return fit(
        DigitsNet(), images[:TRAINING_IMAGES], labels[:TRAINING_IMAGES], epochs=8, perturb=perturb
    )


def taken(folder: Path, ask: Ask, executor: Executor) -> Taken:
    """Gather the checks of a run."""
    found, ended = Taken(), threading.Event()
    watcher = threading.Thread(target=_watch, args=(found.workers, ended), daemon=True)
    watcher.start()
    began, used = time.perf_counter(), time.process_time()
    flatguard.audit(folder, checks=ask.checks, model=ask.model, data=ask.data, executor=executor)
    found.wall, found.own = time.perf_counter() - began, time.process_time() - used
    ended.set()
    watcher.join()
    return found


def side_by_side(folders: list[Path], ask: Ask) -> float:
    """The mean seconds of processes that gather all checks at the same time; no start counts."""
    spawn = multiprocessing.get_context("spawn")
    results, ready = spawn.Queue(), spawn.Barrier(len(folders))
    started = [spawn.Process(target=_beside, args=(f, ask, ready, results)) for f in folders]
    for process in started:
        process.start()
    seconds = [float(results.get()) for _ in started]
    for process in started:
        process.join()
    return mean(seconds)


def _beside(folder: Path, ask: Ask, ready: Barrier, results: Queue[float]) -> None:
    with torch_threads(1):
        ready.wait()
        results.put(taken(folder, ask, InProcess()).wall)


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
