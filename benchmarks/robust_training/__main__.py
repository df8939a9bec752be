"""`make robust-training`: every variant from every seed, each epoch that is kept as safetensors.

    benchmarks/robust_training/cache/
      training.npz  test.npz
      awp-0.005-s0/epoch-008.safetensors ... epoch-080.safetensors
      awp-0.005-s0/history.json              robust error on the held-out images
      early-stopping-s0/epoch-040.safetensors  the baseline's best epoch there

A run that is there stays, so that a training that was stopped goes on; `--fresh` trains all anew.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import time
from pathlib import Path

import torch
from safetensors.torch import save_file

from benchmarks.robust_training import data
from benchmarks.robust_training.train import EPOCHS, Epoch, Variant, train

CACHE = Path(__file__).parent / "cache"
SEEDS = 5
EVERY, KEPT = 4, 8
"""Early stopping looks at every fourth epoch; every eighth is kept."""

BASELINE = Variant("at")
VARIANTS = (
    BASELINE,
    Variant("awp-0.005", awp=0.005),
    Variant("awp-0.01", awp=0.01),
    Variant("weight-decay-0.002", weight_decay=0.002),
    Variant("weight-decay-0.005", weight_decay=0.005),
    Variant("label-noise-0.1", label_noise=0.1),
    Variant("label-noise-0.3", label_noise=0.3),
    Variant("label-smoothing-0.2", label_smoothing=0.2),
)


def main() -> None:
    """Train what is missing."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.robust_training")
    parser.add_argument("--fresh", action="store_true", help="train anew what is there")
    fresh = parser.parse_args().fresh
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    CACHE.mkdir(exist_ok=True)
    data.write(CACHE)
    for seed in range(SEEDS):
        for variant in VARIANTS:
            began = time.process_time()
            folder = CACHE / f"{variant.name}-s{seed}"
            if fresh:
                shutil.rmtree(folder, ignore_errors=True)
            if not folder.is_dir():
                errors = train_into(folder, variant, seed)
                said = (
                    f"held-out robust error {errors[-1]:.1%} at the end, {min(errors):.1%} at best"
                )
                print(
                    f"{folder.name}: {said}; {time.process_time() - began:.0f} s",
                    flush=True,
                )


def train_into(folder: Path, variant: Variant, seed: int) -> list[float]:
    """Train one network into a folder that appears when it is whole; what it erred by, in time."""
    half = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(half, ignore_errors=True)
    half.mkdir()
    best: Epoch | None = None
    history = []
    for epoch in train(variant, seed, data.parts(), EVERY):
        history.append({"epoch": epoch.number, "held_out_error": epoch.held_out_error})
        if best is None or epoch.held_out_error < best.held_out_error:
            best = epoch
        if epoch.number % KEPT == 0:
            save(half, epoch)
    (half / "history.json").write_text(json.dumps(history, indent=1) + "\n")
    if variant == BASELINE and best is not None:
        stopped = folder.with_name(f"early-stopping-s{seed}")
        shutil.rmtree(stopped, ignore_errors=True)
        stopped.mkdir()
        save(stopped, best)
    half.rename(folder)
    return [float(row["held_out_error"]) for row in history]


def save(folder: Path, epoch: Epoch) -> None:
    """The weights of an epoch, under its number."""
    digits = len(str(EPOCHS)) + 1
    save_file(epoch.state, str(folder / f"epoch-{epoch.number:0{digits}d}.safetensors"))


if __name__ == "__main__":
    main()
