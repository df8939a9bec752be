"""The networks under the defences, each with images, labels and a radius (ℓ∞).

Real ones come from the folder that `FLATGUARD_REAL` names; the demo's ResNet-18 comes with the
packages; the digits' networks are trained by `train.py`.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import flatguard
from benchmarks.masking_zoo import digits, train
from benchmarks.masking_zoo.defences.heads import Grouped
from flatguard.data import load_dataset

ARCHITECTURES = Path(__file__).parents[2] / "tests" / "support" / "architectures.py"
IMAGES = "cifar10_test_first1000.npz"
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CERTIFIED = (0.485, 0.456, 0.406), (0.225, 0.225, 0.225)
CIFAR = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)


@dataclass(frozen=True)
class Network:
    """A classifier of images in [0, 1], and what it is attacked on.

    Attributes:
        module: in eval mode.
        images: `(n, channels, height, width)` in [0, 1].
        labels: `(n,)`.
        eps: the radius in ℓ∞ that goes with it.
    """

    module: nn.Module
    images: Tensor
    labels: Tensor
    eps: float


@dataclass(frozen=True)
class Checkpoint:
    """A file in the real folder, its network, normalisation and radius."""

    file: str
    build: Callable[[Any], nn.Module]
    statistics: tuple[tuple[float, ...], tuple[float, ...]]
    eps: float


REAL: dict[str, Checkpoint] = {
    "resnet20": Checkpoint(
        "cifar10_resnet20_standard", lambda a: a.CifarResNet(3), IMAGENET, 8 / 255
    ),
    "resnet56": Checkpoint(
        "cifar10_resnet56_standard", lambda a: a.CifarResNet(9), IMAGENET, 8 / 255
    ),
    "resnet20_rsfgsm": Checkpoint(
        "cifar10_resnet20_rsfgsm_8_255", lambda a: a.CifarResNet(3), IMAGENET, 8 / 255
    ),
    "cnn_wide_certified": Checkpoint(
        "cifar10_cnn_wide_certified_2_255", lambda a: a.cnn(16, 32, 2048), CERTIFIED, 2 / 255
    ),
    "cnn_base_certified": Checkpoint(
        "cifar10_cnn_base_certified_2_255", lambda a: a.cnn(8, 16, 1024), CERTIFIED, 2 / 255
    ),
    "cnn_a_pgd": Checkpoint(
        "cifar10_cnn_a_pgd_2_255", lambda a: a.cnn(16, 32, 2048), CIFAR, 2 / 255
    ),
}
DEMO = "demo_resnet18"
DIGITS = tuple(train.RECIPES)
VEHICLES, THREE = "cnn_a_pgd_vehicles", "cnn_wide_certified_three"
GROUPED: dict[str, tuple[str, tuple[int, ...]]] = {
    VEHICLES: ("cnn_a_pgd", (1, 1, 0, 0, 0, 0, 0, 0, 1, 1)),
    THREE: ("cnn_wide_certified", (0, 0, 1, 1, 2, 1, 2, 2, 0, 0)),
}
"""Real networks that are asked for groups of classes: a base, and the group of each class."""

NAMES = (*REAL, DEMO, *DIGITS, *GROUPED)


class Standardised(nn.Module):
    """Mean and standard deviation per channel, then the network."""

    mean: Tensor
    std: Tensor

    def __init__(self, net: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]):
        super().__init__()
        self.net = net
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Logits of images in [0, 1]."""
        logits: Tensor = self.net((x - self.mean) / self.std)
        return logits


def missing(name: str) -> str | None:
    """Why a network cannot be had here; None if it can."""
    if name in (*REAL, *GROUPED) and not (real_folder() / IMAGES).is_file():
        return f"FLATGUARD_REAL names no folder with {IMAGES}"
    return None


def real_folder() -> Path:
    """The folder of real checkpoints; it may not exist."""
    return Path(os.environ.get("FLATGUARD_REAL", "nowhere"))


@lru_cache
def load(name: str) -> Network:
    """A network by name; shared, so nobody may change it."""
    if name in DIGITS:
        images, labels = digits.digits()
        unseen = slice(digits.TRAINING_IMAGES, None)
        asked = train.labels_of(name, labels)
        return Network(train.trained(name), images[unseen], asked[unseen], train.EPS)
    if name == DEMO:
        return Network(flatguard.load_target("demo").model, *demo_images(), 8 / 255)
    if name in GROUPED:
        base, groups = GROUPED[name]
        found = load(base)
        asked = torch.tensor(groups)[found.labels]
        return Network(Grouped(found.module, groups), found.images, asked, found.eps)
    known = REAL[name]
    net = known.build(architectures())
    net.load_state_dict(load_file(str(real_folder() / "checkpoints" / f"{known.file}.safetensors")))
    module = Standardised(net, *known.statistics).eval()
    return Network(module, *real_images(), known.eps)


def calibration(name: str, n: int = 500) -> tuple[Tensor, Tensor]:
    """Other images than the audited ones, with labels: for means, prototypes and neighbours.

    The digits' are those of their training; the real ones are images 500 to 999.
    """
    if name in DIGITS:
        images, labels = digits.digits()
        return images[:n], train.labels_of(name, labels[:n])
    images, labels = real_images()
    return images[500 : 500 + n], labels[500 : 500 + n]


@lru_cache
def real_images() -> tuple[Tensor, Tensor]:
    """The first 1,000 images of CIFAR-10's test set, and their labels."""
    with np.load(real_folder() / IMAGES) as arrays:
        images = torch.from_numpy(arrays["images"]).permute(0, 3, 1, 2).float() / 255
        return images.contiguous(), torch.from_numpy(arrays["labels"]).long()


def demo_images() -> tuple[Tensor, Tensor]:
    """The real images, or the 20 that come with the packages."""
    if missing(next(iter(REAL))) is None:
        return real_images()
    batch = load_dataset("demo").block(0, 20)
    return batch.images, batch.labels


def architectures() -> Any:
    """The networks that the tests use too; a worker process can import them as well."""
    folder = str(ARCHITECTURES.parent)
    if folder not in sys.path:
        sys.path.append(folder)
    return importlib.import_module(ARCHITECTURES.stem)
