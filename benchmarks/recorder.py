"""What recording costs: attacks recorded, rows attributed and streamed, against the same ones bare.

The demo's ResNet-18 always; the CIFAR ResNet-20 if `FLATGUARD_REAL` names the folder of real
checkpoints (see CONTRIBUTING.md), as it is and with a head of functions in place of its
`nn.Linear`, as zero-shot models have one; AttackBench's `BenchModel` in the same run, if it is
installed (`pip install attackbenchlib`).
"""

from __future__ import annotations

import copy
import importlib
import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import flatguard
from benchmarks.timing import interleaved
from flatguard.attacks import build_attack
from flatguard.attacks.attack import Attack
from flatguard.data import load_dataset
from flatguard.data.dataset import Batch
from flatguard.geometry.budget import Budget
from flatguard.runs.writing import BlockWriter
from flatguard.targets import Target

REPEATS = 20
BUDGET = Budget("Linf", 8 / 255)
ATTACKS: dict[str, dict[str, int]] = {
    "torchattacks:PGD": {"steps": 10},
    "apgd-ce": {"n_iter": 10, "n_restarts": 1},
    "foolbox:LinfPGD": {"steps": 10},
    "square": {"n_queries": 50},  # its default is 5,000: with 10, the folder alone is seen
}
ARCHITECTURES = Path(__file__).parents[1] / "tests" / "support" / "architectures.py"


def main() -> None:
    """Print a line for each network, attack and way of recording."""
    for name, target, batch in subjects():
        target = flatguard.targets.prepare(target, batch.images[:4])
        for attack_name, args in ATTACKS.items():
            attack = build_attack(attack_name, BUDGET, 10, dict(args))
            bare = partial(attack.perturb, target.model, batch.images, batch.labels, seed=0)
            ways: dict[str, Callable[[], Any]] = {
                "recorded": partial(recorded, target, batch, attack)
            }
            theirs = bench_model(target.model, batch, attack)
            if theirs is not None:
                ways["BenchModel"] = theirs
            for way, ratio in interleaved(ways, bare, REPEATS).items():
                called = f"{attack_name} {args} on {len(batch)} images, {name}"
                print(f"{called}: {way} against bare {ratio}", flush=True)


def subjects() -> list[tuple[str, Target, Batch]]:
    """The networks and their images."""
    found = [("ResNet-18", flatguard.load_target("demo"), load_dataset("demo").block(0, 20))]
    real = Path(os.environ.get("FLATGUARD_REAL", "nowhere"))
    weights = real / "checkpoints" / "cifar10_resnet20_standard.safetensors"
    if weights.is_file():
        target = flatguard.load_target(
            str(weights),
            arch=f"{ARCHITECTURES}:resnet20",
            mean=(0.485, 0.456, 0.406),
            std=(0.229, 0.224, 0.225),
        )
        images = load_dataset(str(real / "cifar10_test_first1000.npz")).block(0, 64)
        found.append(("ResNet-20", target, images))
        functional = replace(target, model=FunctionalHead(target.model))
        found.append(("ResNet-20 with a functional head", functional, images))
    return found


class FunctionalHead(nn.Module):
    """The same logits from a matrix product that no module does, like a zero-shot model's."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.body = copy.deepcopy(model)
        layers = [(n, m) for n, m in self.body.named_modules() if isinstance(m, nn.Linear)]
        name, layer = layers[-1]
        self.body.set_submodule(name, nn.Identity())
        self.weight, self.bias = layer.weight, layer.bias

    def forward(self, images: Tensor) -> Tensor:
        """Shape (B, K)."""
        features: Tensor = self.body(images)
        return features @ self.weight.T + self.bias


def recorded(target: Target, batch: Batch, attack: Attack) -> None:
    """One attack as `flatguard evaluate` runs it: rows attributed, and streamed to Parquet."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "evidence" / "blocks").mkdir(parents=True)
        with BlockWriter(Path(folder), 0) as writer:
            recorder = flatguard.Recorder(
                target.model, batch.images, batch.labels, head=target.head, budget=BUDGET,
                order=attack.info.order, sink=writer.append,
            )  # fmt: skip
            with recorder:
                attack.perturb(target.model, batch.images, batch.labels, 0, recorder)
            recorder.flush()


def bench_model(model: nn.Module, batch: Batch, attack: Attack) -> Callable[[], Any] | None:
    """The same attack inside AttackBench's tracking wrapper, or None if it is not installed."""
    try:
        wrapper = importlib.import_module("attackbench.models.benchmodel_wrapper")
        metrics = importlib.import_module("attackbench.adv_lib_sub")
    except ImportError as error:
        print(f"BenchModel is not measured: {error}", file=sys.stderr)
        return None

    def run() -> None:
        tracked = wrapper.BenchModel(model)
        metric = metrics._default_metrics["linf"]
        tracked.start_tracking(
            batch.images, batch.labels, targeted=False, tracking_metric=metric,
            tracking_threat_model="linf",
        )  # fmt: skip
        tracked._benchmark_mode = True
        try:
            attack.perturb(tracked, batch.images, batch.labels, 0)
        finally:
            tracked._benchmark_mode = False
            model._backward_hooks.clear()

    return run


if __name__ == "__main__":
    print(f"{REPEATS} interleaved repeats, {torch.get_num_threads()} threads")
    main()
