"""The checks by one process and by two workers, in turns: time by the clock and of the processor.

A run is attacked once; its checks are gathered from copies of it. The second worker's start counts.
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
from statistics import median

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
        taken_by: dict[int, list[Taken]] = {1: [], 2: []}
        for _ in range(given.turns):
            for workers, executor in ((1, InProcess()), (2, Processes(2))):
                with tempfile.TemporaryDirectory() as copies:
                    copy = Path(copies, "run")
                    shutil.copytree(attacked.path, copy)
                    taken_by[workers].append(taken(copy, model, data, given.checks, executor))
    _print(taken_by[1], taken_by[2])


def _print(ones: list[Taken], twos: list[Taken]) -> None:
    """Print each turn, and the ratio of every turn's two: machines change their pace."""
    for one, two in zip(ones, twos, strict=True):
        print(
            f"one process {one.wall:.1f} s ({one.own:.1f} s of the processor), two workers "
            f"{two.wall:.1f} s ({two.own:.1f} s here, {sum(two.workers.values()):.1f} s elsewhere)"
        )
    ratios = sorted(one.wall / two.wall for one, two in zip(ones, twos, strict=True))
    print(f"speed-up: {median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})")


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
