"""What an audit costs beside the attacks that it is compared with, on the same samples and seeds.

All contenders run in turns in one process, in an order that alternates, so that a slow minute slows
all of them. What they send through the model is counted by hooks on the model, outside the code
under test: rows forward, and rows whose gradient comes back. On a CPU, time is the process's own;
on a GPU, that between two CUDA events. Ratios are those of one turn to the bare attack of the same
turn, with the 95% bootstrap interval of their median.

    python -m benchmarks.contenders --network cnn_a_pgd --images 50 --turns 5 --json out.json
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import flatguard
from benchmarks.masking_zoo import networks
from benchmarks.recorder import bench_model, recorded
from benchmarks.timing import Ratio, ratio_of
from flatguard.attacks import build_attack, find_attack
from flatguard.data.dataset import Batch
from flatguard.environment.devices import choose_device
from flatguard.environment.engines import ENGINES
from flatguard.errors import FlatguardError, UsageError
from flatguard.geometry.budget import Budget
from flatguard.geometry.distance import within
from flatguard.targets import Target, make_target, prepare
from flatguard.targets.engine import faster_twin

BARE = "bare PGD"
Contender = Callable[[int], Tensor | None]
"""Attacks with this seed; returns the examples, or None where it keeps them to itself."""


@dataclass
class Count:
    """Rows that went forward through a model and its copies, and rows of gradients."""

    forwards: int = 0
    backwards: int = 0


@dataclass(frozen=True)
class Subject:
    """What all contenders attack.

    Attributes:
        target: prepared, on the device.
        batch: the samples, on the device.
        eps: the radius, ℓ∞.
        steps: of PGD.
        count: of the rows that the target and its copies have answered.
    """

    target: Target
    batch: Batch
    eps: float
    steps: int
    count: Count

    @property
    def budget(self) -> Budget:
        """Of all attacks."""
        return Budget("Linf", self.eps)

    @property
    def pgd(self) -> dict[str, Any]:
        """The arguments of PGD, from the clean image."""
        return {"steps": self.steps, "alpha": self.eps / 4, "random_start": False}


@dataclass
class Measured:
    """What one contender took in each turn.

    Attributes:
        name: of the contender.
        forwards, backwards: rows, in the first turn.
        right: samples that stay right within the budget; None where it returns no examples.
        seconds: of each turn.
    """

    name: str
    forwards: int = 0
    backwards: int = 0
    right: int | None = None
    seconds: list[float] = field(default_factory=list)


def main() -> None:
    """Print a line for each contender."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--network", default="demo", help="of the masking zoo; demo needs no file")
    parser.add_argument("--images", type=int, default=20)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--device", default=None)
    parser.add_argument("--without", action="append", default=[], help="a contender's name")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    if (why := networks.missing(given.network)) is not None:
        parser.error(why)
    subject = subject_of(given.network, given.images, given.steps, choose_device(given.device))
    found = measure(subject, contenders(subject, given.without), given.turns)
    for line in table(found):
        print(line)
    if given.json is not None:
        where = {
            "network": given.network, "images": len(subject.batch), "steps": given.steps,
            "turns": given.turns, "device": str(subject.batch.images.device),
            "threads": torch.get_num_threads(), "torch": torch.__version__,
        }  # fmt: skip
        content = {**where, "measured": [asdict(each) for each in found]}
        given.json.write_text(json.dumps(content, indent=1) + "\n", "utf-8")


def subject_of(network: str, count: int, steps: int, device: torch.device) -> Subject:
    """A network of the zoo with its first samples."""
    loaded = networks.load(network)
    batch = Batch(loaded.images[:count].to(device), loaded.labels[:count].to(device))
    module = copy.deepcopy(loaded.module).to(device)  # the zoo shares its networks
    rows = counted(module)
    target = prepare(make_target(module, network, "the masking zoo"), batch.images[:8])
    return Subject(target, batch, loaded.eps, steps, rows)


def contenders(subject: Subject, without: list[str]) -> dict[str, Contender]:
    """By name; what cannot be had here is named on a line of its own."""
    pgd = build_attack("torchattacks:PGD", subject.budget, _classes(subject), subject.pgd)
    model, images, labels = subject.target.model, subject.batch.images, subject.batch.labels
    found: dict[str, Contender] = {
        BARE: lambda seed: pgd.perturb(model, images, labels, seed).images,
        "recorded PGD": lambda seed: recorded(subject.target, subject.batch, pgd),
    }
    wrapped = bench_model(model, subject.batch, pgd)
    if wrapped is not None:
        found["PGD in AttackBench's BenchModel"] = lambda seed: wrapped()
    for option in ENGINES:
        name = f"recorded PGD, --engine {option}"
        if name in without:
            continue
        try:
            twin = faster_twin(subject.target, [option], images[:8])
        except UsageError as error:
            print(f"{name} is left out: {error}")
            continue
        found[name] = partial(_searched, twin, subject, pgd)
    if find("cascade"):
        cascade = build_attack("cascade", subject.budget, _classes(subject), {})
        found["cascade"] = lambda seed: cascade.perturb(model, images, labels, seed).images
    standard = build_attack("standard", subject.budget, _classes(subject), {})
    found["AutoAttack standard"] = lambda seed: standard.perturb(model, images, labels, seed).images
    found["PGD with --checks standard"] = partial(_checked, subject)
    return {name: run for name, run in found.items() if name == BARE or name not in without}


def find(attack: str) -> bool:
    """Whether flatguard has this attack."""
    try:
        find_attack(attack)
    except FlatguardError:
        return False
    return True


def _searched(twin: Target, subject: Subject, attack: Any, seed: int) -> None:
    """The attack on a twin, recorded, and the passes that measure its result on the model."""
    recorded(twin, subject.batch, attack)
    with torch.no_grad():
        subject.target.model(subject.batch.images)


def _checked(subject: Subject, seed: int) -> None:
    """A whole run: attack, checks, verdict and report."""
    with tempfile.TemporaryDirectory() as folder:
        flatguard.evaluate(
            subject.target.model, "torchattacks:PGD",
            data=(subject.batch.images.cpu(), subject.batch.labels.cpu()), norm="Linf",
            eps=subject.eps, attack_args=subject.pgd, batch_size=len(subject.batch), seed=seed,
            device=str(subject.batch.images.device), checks="standard", out=Path(folder) / "run",
        )  # fmt: skip


def measure(subject: Subject, entries: dict[str, Contender], turns: int) -> list[Measured]:
    """Run all contenders in turns, after one turn to warm up; the order alternates."""
    found, count = {name: Measured(name) for name in entries}, subject.count
    clock = clock_of(subject.batch.images.device)
    for turn in range(turns + 1):
        for name in list(entries) if turn % 2 else list(entries)[::-1]:
            before, began = replace(count), clock()
            examples = entries[name](turn)
            seconds, one = clock() - began, found[name]
            if turn == 0:
                one.forwards = count.forwards - before.forwards
                one.backwards = count.backwards - before.backwards
                one.right = None if examples is None else _right(subject, examples)
            else:
                one.seconds.append(seconds)
    return list(found.values())


def counted(model: nn.Module) -> Count:
    """Count the rows of each call of a model from now on, and those of its copies.

    A copy of a module has its hooks, and a function is not copied: all of them count in one place.
    """
    count = Count()

    def after(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        count.forwards += len(output)
        if output.requires_grad:
            output.register_hook(back)

    def back(gradient: Tensor) -> None:
        count.backwards += len(gradient)

    model.register_forward_hook(after)
    return count


def clock_of(device: torch.device) -> Callable[[], float]:
    """Seconds of the device: between CUDA events, or of this process alone on a CPU."""
    if device.type != "cuda":
        return time.process_time
    first = torch.cuda.Event(enable_timing=True)
    first.record()

    def now() -> float:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        event.synchronize()
        return float(first.elapsed_time(event)) / 1e3

    return now


def table(found: list[Measured]) -> list[str]:
    """A line for each contender: passes, samples left, seconds, and the ratio with its spread."""
    bare = next(each for each in found if each.name == BARE)
    lines = [f"{'contender':<36}{'forwards':>10}{'backwards':>11}{'right':>7}{'s':>9}  ratio"]
    for each in found:
        right = "" if each.right is None else str(each.right)
        ratio: Ratio = ratio_of(each.seconds, bare.seconds)
        lines.append(
            f"{each.name:<36}{each.forwards:>10,}{each.backwards:>11,}{right:>7}"
            f"{statistics.median(each.seconds):>9.3f}  {ratio.median:.3f} "
            f"({ratio.lower:.3f} to {ratio.upper:.3f})"
        )
    return lines


def _right(subject: Subject, examples: Tensor) -> int:
    """How many samples stay right, in a fresh pass and within the budget."""
    with torch.no_grad():
        right = subject.target.model(examples).argmax(dim=1) == subject.batch.labels
        clean = subject.target.model(subject.batch.images).argmax(dim=1) == subject.batch.labels
    inside = within(examples, subject.batch.images, subject.budget)
    return int((clean & (right | ~inside)).sum())


def _classes(subject: Subject) -> int:
    assert subject.target.num_classes is not None, "the target is prepared"
    return subject.target.num_classes


if __name__ == "__main__":
    main()
