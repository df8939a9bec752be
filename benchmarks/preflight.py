"""What preflight costs: against PGD with 20 steps on 1,000 images, in one interleaved run.

Three CIFAR networks where `FLATGUARD_REAL` names the folder of real checkpoints (see
CONTRIBUTING.md). PGD attacks `SHARE` of the images, and its time is scaled. Processor time is
compared: another process beside this one slows both, but not alike.
"""

from __future__ import annotations

import os
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.timing import interleaved
from flatguard.attacks import build_attack
from flatguard.checks.preflight.judged import preflight
from flatguard.execution.context import ModelAndData, load_model_and_data
from flatguard.geometry.budget import Budget
from flatguard.request import make_request

IMAGES, SHARE, REPEATS = 1000, 0.128, 7
ARCHITECTURES = Path(__file__).parents[1] / "tests" / "support" / "architectures.py"
IMAGENET = {"mean": ".485,.456,.406", "std": ".229,.224,.225"}
EVEN = {"mean": ".485,.456,.406", "std": ".225,.225,.225"}
CIFAR = {"mean": ".4914,.4822,.4465", "std": ".2023,.1994,.2010"}
NETWORKS: dict[str, dict[str, str]] = {
    "resnet20_standard": {"arch": "resnet20", **IMAGENET},
    "cnn_wide_certified_2_255": {"arch": "cnn_wide", **EVEN},
    "cnn_a_pgd_2_255": {"arch": "cnn_wide", **CIFAR},
}


def main() -> None:
    """Print a line for each network."""
    for name, loaded in subjects():
        batch = loaded.dataset.block(0, round(SHARE * IMAGES))
        classes = loaded.target.num_classes or 2
        attack = build_attack("torchattacks:PGD", Budget("Linf", 8 / 255), classes, {"steps": 20})
        base = partial(attack.perturb, loaded.target.model, batch.images, batch.labels, seed=0)
        ratio = interleaved(
            {"preflight": partial(preflight, loaded)}, base, REPEATS, time.process_time
        )["preflight"]
        share = SHARE * ratio.median
        cost = preflight(loaded).facts
        print(
            f"{name}: preflight is {share:.2%} of PGD-20 on {IMAGES} images (95% bound "
            f"{SHARE * ratio.upper:.2%}); {cost.forwards} forwards, {cost.backwards} backwards",
            flush=True,
        )


def subjects() -> list[tuple[str, ModelAndData]]:
    """The networks with their images."""
    real = Path(os.environ.get("FLATGUARD_REAL", "nowhere"))
    found: list[tuple[str, ModelAndData]] = []
    if not real.is_dir():
        return found
    data = str(real / "cifar10_test_first1000.npz")
    for name, options in NETWORKS.items():
        model = str(real / "checkpoints" / f"cifar10_{name}.safetensors")
        arch = f"{ARCHITECTURES}:{options['arch']}"
        found.append((name, _load({**options, "model": model, "arch": arch, "dataset": data})))
    return found


def _load(options: dict[str, Any]) -> ModelAndData:
    request = make_request(attack="torchattacks:PGD", n_examples=IMAGES, **options)
    return load_model_and_data(request)


if __name__ == "__main__":
    print(f"{REPEATS} interleaved repeats, processor time, {torch.get_num_threads()} threads")
    main()
