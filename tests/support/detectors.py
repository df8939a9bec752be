"""Detectors for the digits network, calibrated on images that no test attacks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from support import digits
from torch import Tensor

import flatguard
from flatguard.detection import SharpnessDetector
from flatguard.detection.kept import AdaptiveFacts
from flatguard.runs.store import Run
from flatguard.targets import Target, prepare

ARCH = f"{digits.__file__}:digits_net"
ATTACKED = slice(digits.TRAINING, digits.TRAINING + digits.TESTED)
PGD = {"steps": 20, "alpha": 0.02}
ADAPTIVE = AdaptiveFacts(
    norm="Linf", eps=8 / 255, samples=200, evaded=194, interval=(0.936, 0.989), misclassified=199,
    false_positives=0.05, seed=3,
)  # fmt: skip


def target(files: Path, logit_scale: float = 1.0) -> Target:
    loaded = flatguard.load_target(str(files / "digits.safetensors"), arch=ARCH)
    return prepare(loaded, digits.digits()[0][:4], logit_scale=logit_scale)


def calibration() -> Tensor:
    """597 images that the network was neither trained nor is attacked on."""
    return digits.digits()[0][ATTACKED.stop :]


def attacked() -> tuple[Tensor, Tensor]:
    images, labels = digits.digits()
    return images[ATTACKED], labels[ATTACKED]


def detector(files: Path, **how: Any) -> SharpnessDetector:
    return SharpnessDetector(target(files), **how).fit(calibration())


def evaluate(files: Path, out: str | Path, **how: Any) -> Run:
    """PGD on the digits, judged by nothing: what is flagged needs no probe."""
    asked = {"eps": digits.EPS, "attack_args": PGD, "checks": "none", "attack": "torchattacks:PGD"}
    asked |= {"data": str(files / "digits.npz"), "arch": ARCH} | how
    model = asked.pop("model", str(files / "digits.safetensors"))
    return flatguard.evaluate(model, out=out, **asked)  # type: ignore[arg-type]


def adversarial(run: Run) -> Tensor:
    return torch.cat([run.adversarial(block.plan.index) for block in run.blocks])
