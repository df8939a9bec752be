"""Detectors for the digits network, calibrated on images that no test attacks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from support import digits
from torch import Tensor, nn

import flatguard
from flatguard.detection import SharpnessDetector
from flatguard.detection.detector_file import AdaptiveFacts
from flatguard.runs.run import Run
from flatguard.targets import Target, prepare
from flatguard.targets.target import make_target

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


class Touched(nn.Module):
    """Adds to the logits of bright images, so that its head does not explain them."""

    def __init__(self, net: nn.Module, bright: float):
        super().__init__()
        self.net, self.bright = net, bright

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(x)
        return logits + 3.0 * is_bright(x, self.bright)[:, None] * logits.roll(1, 1)


def is_bright(images: Tensor, limit: float) -> Tensor:
    return images.mean(dim=(1, 2, 3)) > limit


def touched(files: Path, out: str) -> Run:
    """A run in which a tenth of the clean images have no log κ; its first images have one."""
    images, labels = attacked()
    limit = float(images.mean(dim=(1, 2, 3)).quantile(0.9))
    order = torch.argsort(is_bright(images, limit).int(), stable=True)
    model = make_target(Touched(target(files).model, limit).eval(), "touched", "a test")
    model = prepare(model, images[order][:4])
    ordinary = calibration()[~is_bright(calibration(), limit)]
    SharpnessDetector(model, alpha=0.1).fit(ordinary).save("touched.json")
    data = (images[order], labels[order])
    return evaluate(files, out, model=model, data=data, arch=None, detector="touched.json")
