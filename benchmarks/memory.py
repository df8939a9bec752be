"""What recording costs in memory: peak resident size of child processes, recorded against bare.

Each figure is the peak of a process of its own, so nothing that another one did is in it.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from benchmarks.recorder import recorded
from benchmarks.usage import peak_bytes
from flatguard.attacks import build_attack
from flatguard.data import load_dataset
from flatguard.data.dataset import Batch
from flatguard.geometry.budget import Budget, Norm
from flatguard.recording.recorder import Recorder
from flatguard.runs.writing import BlockWriter
from flatguard.targets import make_target, prepare
from flatguard.targets.demo import load

REPEATS = 3
RADII: dict[Norm, float] = {"Linf": 8 / 255, "L2": 3.0, "L1": 100.0, "L0": 500.0}


@dataclass(frozen=True)
class Trial:
    """What a child process does.

    Attributes:
        what: PGD on the demo's ResNet-18; calls at ImageNet's size on whole batches and subsets;
            or PGD with `steps` on a tiny network.
        is_recorded: with the recorder, streamed to Parquet, or bare.
        norm: the budget's.
        steps: of the attack.
        examples: how many images.
    """

    what: Literal["demo", "imagenet", "tiny"]
    is_recorded: bool
    norm: Norm = "Linf"
    steps: int = 10
    examples: int = 20


def main() -> None:
    """Print the peaks, or do the one trial that the arguments name."""
    if len(sys.argv) > 1:
        run(Trial(**json.loads(sys.argv[1])))
        print(peak_bytes())
        return
    bare, ours = peak(Trial("demo", False)), peak(Trial("demo", True))
    print(
        f"PGD-10 on ResNet-18, 20 images: {bare:.0f} MB bare, {ours:.0f} MB recorded, "
        f"ratio {ours / bare:.3f}",
        flush=True,
    )
    bare = peak(Trial("imagenet", False, examples=128))
    for norm in RADII:
        added = peak(Trial("imagenet", True, norm, examples=128)) - bare
        print(f"3×224×224×128 within {norm}: recording adds {added:.0f} MB to {bare:.0f} MB")
    for steps, examples in ((50, 512), (500, 512), (2000, 512), (50, 5120)):
        sizes = [peak(Trial("tiny", r, steps=steps, examples=examples)) for r in (False, True)]
        print(
            f"PGD-{steps} on a tiny network, {examples} images: {sizes[0]:.0f} MB bare, "
            f"{sizes[1]:.0f} MB recorded, {steps * examples:,} rows"
        )


def peak(trial: Trial) -> float:
    """Median peak resident size of a few processes, in MB."""
    command = [sys.executable, "-m", "benchmarks.memory", json.dumps(asdict(trial))]
    outputs = [
        subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1]
        for _ in range(REPEATS)
    ]
    return statistics.median(int(output) for output in outputs) / 1e6


def run(trial: Trial) -> None:
    """One trial, in this process."""
    torch.manual_seed(0)
    if trial.what == "imagenet":
        imagenet(trial)
        return
    if trial.what == "demo":
        target, size = load(), 32
        batches = [load_dataset("demo").block(0, trial.examples)]
    else:
        network = nn.Sequential(nn.Flatten(), nn.Linear(192, 16), nn.ReLU(), nn.Linear(16, 4))
        target, size = make_target(network, "tiny", "a benchmark"), 8
        labels = torch.arange(512) % 4
        batches = [Batch(torch.rand(512, 3, 8, 8), labels)] * (trial.examples // 512)
    target = prepare(target, torch.rand(4, 3, size, size))
    attack = build_attack(
        "torchattacks:PGD", Budget("Linf", 8 / 255), target.num_classes or 10,
        {"steps": trial.steps},
    )  # fmt: skip
    import pandas  # noqa: F401 - what a run loads anyway is in both figures
    import pyarrow.parquet  # noqa: F401

    for batch in batches:
        if trial.is_recorded:
            recorded(target, batch, attack)
        else:
            attack.perturb(target.model, batch.images, batch.labels, 0)


def imagenet(trial: Trial) -> None:
    """Whole batches, as most attacks call, and a sorted subset and a shuffled one, as others do."""
    network = nn.Sequential(nn.AvgPool2d(56), nn.Flatten(), nn.Linear(48, 10)).eval()
    images = torch.rand(trial.examples, 3, 224, 224)
    labels = torch.arange(trial.examples) % 10
    import pandas  # noqa: F401
    import pyarrow.parquet  # noqa: F401

    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        if not trial.is_recorded:
            call(network, images)
            return
        (Path(folder) / "evidence" / "blocks").mkdir(parents=True)
        with BlockWriter(Path(folder), 0) as writer:
            budget = Budget(trial.norm, RADII[trial.norm])
            recorder = Recorder(network, images, labels, budget=budget, sink=writer.append)
            with recorder:
                call(network, images)
            recorder.flush()


def call(network: nn.Module, images: Tensor) -> None:
    """The whole batch, moved within every norm's radius; a subset; and the batch turned round."""
    moved = images.clone()
    moved[:, :, :5, :5] += 8 / 255 * (0.5 - moved[:, :, :5, :5])
    for rows in (images, moved, moved[::2].contiguous(), moved.flip(0)):
        network(rows)


if __name__ == "__main__":
    main()
