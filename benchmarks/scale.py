"""How a run grows: with workers, on Ray, with the number of examples; and where it stops growing.

1. Examples per second of one and two single-thread workers, against one and two bare attack
   processes that record and store nothing, in turns.
2. What a block costs on Ray beside what it costs in this process.
3. Peak memory for 5,000 and for 50,000 examples of a memory-mapped file.
4. From the times that were just measured, by simulation: 1 to 256 workers on 50,000 examples.
"""

from __future__ import annotations

import argparse
import heapq
import multiprocessing
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

import flatguard
from benchmarks.usage import peak_bytes
from flatguard.execution.compute_budget import ComputeBudget
from flatguard.execution.executors import Executor, InProcess, Processes, Ray, Work
from flatguard.execution.origin import torch_threads
from flatguard.execution.progress import Silent
from flatguard.execution.reopening import data_sha256, reopen
from flatguard.request import NO_LIMITS
from flatguard.runs.facts import BlockPlan, SampleFailure, Timing
from flatguard.runs.json_files import read_sealed
from flatguard.runs.run import load_run

BLOCK = 4
STORE_SECONDS = 0.2
"""Commits to an object store are put at so much beside what they take on this disk: a handful of
requests of some 30 ms each."""


def main() -> None:
    """Print all four, or do the one trial of memory that the arguments name."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--memory", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.memory:
        print(peak_of(given.memory))
        return
    with tempfile.TemporaryDirectory() as folder:
        workers(Path(folder), given.images, given.turns)
        ray_overhead(Path(folder))
        memory()
        simulate(measure(Path(folder), given.images))


@dataclass(frozen=True)
class Asked:
    """PGD on the demo's ResNet-18, on noise, in blocks of four images."""

    folder: Path
    images: int
    steps: int = 10

    def plan(self, name: str, checks: str = "none") -> Work:
        """A run folder with its manifest and no block."""
        data = self.folder / f"noise{self.images}"
        if not data.with_suffix(".npz").exists():
            rng = np.random.default_rng(0)
            pixels = rng.integers(0, 256, (self.images, 3, 32, 32), np.uint8)
            np.savez(data, images=pixels, labels=np.arange(self.images) % 10)
        run = flatguard.evaluate(
            "demo", "torchattacks:PGD", data=f"{data}.npz", attack_args={"steps": self.steps},
            n_examples=self.images, batch_size=BLOCK, threads=1, checks=checks,
            shard=f"{self.images}/{self.images}", out=self.folder / name,
        )  # fmt: skip
        blocks, unlimited = run.manifest.blocks, ComputeBudget(NO_LIMITS)
        return Work(reopen(run), run, blocks, 0, _ignore, Silent(), unlimited)


def workers(folder: Path, images: int, turns: int) -> None:
    """Print the speed-up of two workers, ours and bare, as medians of paired turns."""
    asked, found = Asked(folder, images), dict[str, list[float]]()
    names = [("bare", 1), ("bare", 2), ("flatguard", 1), ("flatguard", 2)]
    for turn in range(turns):
        for kind, count in names if turn % 2 else names[::-1]:
            work = asked.plan(f"{kind}{count}-{turn}")
            began = time.perf_counter()
            if kind == "bare":
                bare(work, count)
            else:
                attack(work, Processes(count))
            found.setdefault(f"{kind} {count}", []).append(time.perf_counter() - began)
    for name, seconds in found.items():
        print(f"{name} worker(s): {images / statistics.median(seconds):.2f} examples/s", flush=True)
    ups = {
        kind: [a / b for a, b in zip(found[f"{kind} 1"], found[f"{kind} 2"], strict=True)]
        for kind in ("bare", "flatguard")
    }
    shares = [a / b for a, b in zip(ups["flatguard"], ups["bare"], strict=True)]
    medians = {kind: statistics.median(values) for kind, values in ups.items()}
    print(
        f"speed-up of two workers: {medians['flatguard']:.2f}, of two bare attack processes "
        f"{medians['bare']:.2f}; ratio {statistics.median(shares):.3f} "
        f"(of {turns} turns {min(shares):.3f} to {max(shares):.3f})",
        flush=True,
    )


def attack(work: Work, executor: Executor, finished: Callable[[], object] = lambda: None) -> None:
    """Every block of a run, by an executor."""

    def done(plan: BlockPlan, failures: Sequence[SampleFailure]) -> None:
        finished()

    executor.attack(replace(work, finished=done))


def _ignore(plan: BlockPlan, failures: Sequence[SampleFailure]) -> None:
    pass


def bare(work: Work, count: int) -> None:
    """The same attack in so many processes that do nothing else."""
    spawn = multiprocessing.get_context("spawn")
    folder = str(work.run.path)
    started = [spawn.Process(target=bare_worker, args=(folder, i, count)) for i in range(count)]
    for process in started:
        process.start()
    for process in started:
        process.join()
        if process.exitcode:
            raise RuntimeError(f"a bare process ended with {process.exitcode}")


def bare_worker(folder: str, number: int, count: int) -> None:
    """Every `count`-th block, by the library alone."""
    torch.set_num_threads(1)
    context = reopen(load_run(folder))
    for plan in load_run(folder).manifest.blocks[number::count]:
        batch = context.dataset.block(plan.start, plan.stop)
        context.attack.perturb(context.target.model, batch.images, batch.labels, plan.seed)


def _note(moments: list[float]) -> None:
    moments.append(time.perf_counter())


def ray_overhead(folder: Path, turns: int = 3) -> None:
    """Print how much longer a block takes on Ray than in this process, one at a time in both.

    A cluster of one slot, so that two cores that share their memory are not taken for overhead.
    """
    import ray

    began = time.perf_counter()
    ray.init(num_cpus=1, log_to_driver=False, logging_level="error")
    print(f"Ray's local cluster starts in {time.perf_counter() - began:.1f} s", flush=True)
    found: dict[str, list[float]] = {"in process": [], "on Ray": []}
    executors: dict[str, Executor] = {"in process": InProcess(), "on Ray": Ray()}
    with torch_threads(1):
        for turn in range(turns):
            for name in sorted(found, reverse=bool(turn % 2)):
                work = Asked(folder, 96, steps=1).plan(f"overhead {name} {turn}")
                moments = list[float]()
                attack(work, executors[name], partial(_note, moments))
                # The first blocks are warm-up: a worker of Ray loads the run.
                found[name].append((moments[-1] - moments[3]) / (len(moments) - 4))
    ray.shutdown()
    for name, seconds in found.items():
        told = ", ".join(f"{each * 1e3:.0f}" for each in seconds)
        print(f"a small block {name}: {statistics.median(seconds) * 1e3:.0f} ms of {told}")
    extra = [ours - here for here, ours in zip(*found.values(), strict=True)]
    print(
        f"Ray's overhead a shard: {statistics.median(extra) * 1e3:.0f} ms "
        f"({min(extra) * 1e3:.0f} to {max(extra) * 1e3:.0f})",
        flush=True,
    )


def memory(turns: int = 5) -> None:
    """Print peak resident memory for 5,000 and 50,000 examples, in processes of their own."""
    found: dict[int, list[float]] = {5_000: [], 50_000: []}
    for _ in range(turns):
        for count, sizes in found.items():
            command = [sys.executable, "-m", "benchmarks.scale", "--memory", str(count)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            sizes.append(float(done.stdout.split()[-1]))
    for count, sizes in found.items():
        told = ", ".join(f"{size:.0f}" for size in sizes)
        print(f"{count:,} examples: peak {statistics.median(sizes):.0f} MB of {told}", flush=True)
    few, many = (statistics.median(sizes) for sizes in found.values())
    print(f"ratio {many / few:.3f}", flush=True)


def peak_of(count: int) -> float:
    """PGD-10 with the fast checks on so many memory-mapped images; peak resident size in MB."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    net = nn.Sequential(nn.Flatten(), nn.Linear(3072, 16), nn.ReLU(), nn.Linear(16, 10)).eval()
    with tempfile.TemporaryDirectory() as place:
        folder, rng = Path(place), np.random.default_rng(0)
        with (folder / "images.npy").open("wb") as file:
            about = {"descr": "|u1", "fortran_order": False, "shape": (count, 3, 32, 32)}
            np.lib.format.write_array_header_1_0(file, about)
            for _ in range(0, count, 1000):
                file.write(rng.integers(0, 256, (1000, 3, 32, 32), np.uint8).tobytes())
        np.save(folder / "labels.npy", np.arange(count) % 10)
        flatguard.evaluate(
            net, "torchattacks:PGD", data=f"{folder / 'images.npy'},{folder / 'labels.npy'}",
            n_examples=count, batch_size=500, eps="8/255", attack_args={"steps": 10},
            out=folder / "run",
        )  # fmt: skip
    return _peak_megabytes()


def _peak_megabytes() -> float:
    """This program's own: on Linux `ru_maxrss` of a child begins with the size of its parent."""
    if sys.platform == "linux":
        status = Path("/proc/self/status").read_text("utf-8").split()
        return int(status[status.index("VmHWM:") + 1]) * 1024 / 1e6
    return peak_bytes() / 1e6


@dataclass(frozen=True)
class Times:
    """What was measured, in seconds.

    Attributes:
        blocks: of each block of `BLOCK` examples, on one core.
        commit: writing a block down, in the median.
        start: until a worker has loaded what it needs.
        read: an example, when a run is planned.
        probe: an example, in the checks of the fast level.
        judge: an example, for verdict and report.
    """

    blocks: tuple[float, ...]
    commit: float
    start: float
    read: float
    probe: float
    judge: float


def measure(folder: Path, images: int) -> Times:
    """Time the stages of a run in this process."""
    with torch_threads(1):
        began = time.perf_counter()
        work = Asked(folder, images).plan("measured", checks="fast")
        start, moments = time.perf_counter() - began, [time.perf_counter()]
        attack(work, InProcess(), partial(_note, moments))
        began = time.perf_counter()
        data_sha256(work.context)
        read = time.perf_counter() - began
        began = time.perf_counter()
        run = flatguard.resume(work.run, allow_code=True)
        rest = time.perf_counter() - began
    stages = [_seconds(f) for f in run.path.glob("evidence/blocks/*/timing.json")]
    inside = sum(sum(stage.values()) for stage in stages)
    probes = [_seconds(f)["probe"] for f in run.path.glob("evidence/probes/*/timing.json")]
    times = np.diff(moments)
    return Times(
        blocks=tuple(times.tolist()),
        commit=max(0.0, float(times.sum() - inside) / len(times)),
        start=start,
        read=read / images,
        probe=sum(probes) / images,
        judge=max(0.0, rest - sum(probes)) / images,
    )


def _seconds(timing: Path) -> dict[str, float]:
    return read_sealed(Timing, timing).seconds


def simulate(times: Times, examples: int = 50_000) -> None:
    """Print hours and the bottleneck for 1 to 256 workers; blocks go to whoever is free.

    Block times are drawn from the measured ones (seed 0). Planning, probes and judging are done
    by one process, before and after.
    """
    count = -(-examples // BLOCK)
    drawn = np.random.default_rng(0).choice(times.blocks, count) + STORE_SECONDS
    serial = {
        "reading the data": times.read * examples,
        "the checks, which one process does": times.probe * examples,
        "judging and reporting": times.judge * examples,
    }
    work = float(drawn.sum()) + times.start
    alone = work + sum(serial.values())
    print(
        f"simulated: {examples:,} examples in blocks of {BLOCK}, {statistics.mean(drawn):.2f} s "
        f"each, of which {STORE_SECONDS + times.commit:.2f} s to store"
    )
    print("workers     hours  speed-up  attack alone  bottleneck")
    for number in (1, 2, 4, 8, 16, 32, 64, 128, 256):
        free = [times.start] * number
        heapq.heapify(free)
        for seconds in drawn:
            heapq.heapreplace(free, free[0] + float(seconds))
        attacking = max(free)
        parts = {
            "the attack itself": (float(drawn.sum()) - STORE_SECONDS * count) / number,
            "storing": STORE_SECONDS * count / number,
            "starting workers": times.start,
            "the last blocks": attacking - min(free),
            **serial,
        }
        whole = attacking + sum(serial.values())
        worst = max(parts, key=lambda name: parts[name])
        print(
            f"{number:7d} {whole / 3600:9.2f} {alone / whole:9.1f} {work / attacking:13.1f}  "
            f"{worst} ({parts[worst] / whole:.0%})"
        )


if __name__ == "__main__":
    main()
