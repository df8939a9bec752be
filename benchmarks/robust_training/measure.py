"""Runs `flatguard geometry robust-flatness` on what was trained, as a user would.

The last epoch of every training and the early-stopped ones under one protocol, into `cache/last`;
several epochs of the baseline under a shorter one, into `cache/epochs`. What is there stays.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

import torch

from benchmarks.robust_training.__main__ import BASELINE, CACHE, VARIANTS
from benchmarks.robust_training.data import EPS, write
from benchmarks.robust_training.train import EPOCHS
from flatguard.cli.app import main as flatguard

ARCHITECTURE = "benchmarks.robust_training.train:small_net"
SAMPLES = 200
SHORT = ("--steps", "20", "--restarts", "2")
"""The paper restarts ten times; what that would change here was not measured."""

FOLLOWED = (BASELINE.name,)
FOLLOWED_EPOCHS = (16, 32, 40, 56, EPOCHS)


def last_epochs() -> list[Path]:
    """Of every training, and what early stopping kept of the baseline's."""
    names = {variant.name for variant in VARIANTS}
    folders = [f for f in sorted(CACHE.iterdir()) if re.sub(r"-s\d+$", "", f.name) in names]
    last = [folder / f"epoch-{EPOCHS:03d}.safetensors" for folder in folders]
    return last + sorted(CACHE.glob("early-stopping-s*/*.safetensors"))


def followed() -> list[Path]:
    """Several epochs of the baseline, from every seed."""
    return [
        file
        for name in FOLLOWED
        for epoch in FOLLOWED_EPOCHS
        for file in sorted(CACHE.glob(f"{name}-s*/epoch-{epoch:03d}.safetensors"))
    ]


def measure(files: Iterable[Path], out: str, *options: str) -> None:
    """The command, in this process."""
    common = [
        "--arch", ARCHITECTURE, "--dataset", str(CACHE / "test.npz"),
        "--training", str(CACHE / "training.npz"), "--held-out", str(CACHE / "held_out.npz"),
        "--norm", "Linf", "--eps", str(EPS), "--n-examples", str(SAMPLES),
        "--batch-size", str(SAMPLES), "--device", "cpu", "--out", str(CACHE / out),
    ]  # fmt: skip
    try:
        flatguard(["geometry", "robust-flatness", *map(str, files), *common, *options])
    except SystemExit as stop:
        if stop.code:
            raise


def main() -> None:
    """Measure what is missing."""
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    write(CACHE)
    measure(last_epochs(), "last", "--attack", "apgd-t", *SHORT, "--worst-restarts", "1")
    quick = ("--attack", "apgd-ce", "--attack-arg", "n_restarts=1", "--worst-restarts", "0")
    measure(followed(), "epochs", *quick, "--steps", "20", "--restarts", "1")


if __name__ == "__main__":
    main()
