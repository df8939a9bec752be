"""The digits network as a prepared target, and images that it was not trained on."""

from __future__ import annotations

import torch
from support import digits
from torch import Tensor

from flatguard.targets import Target, prepare
from flatguard.targets.target import make_target


def images(n: int, start: int = 0) -> Tensor:
    return digits.digits()[0][digits.TRAINING :][start : start + n]


def labels(n: int, start: int = 0) -> Tensor:
    return digits.digits()[1][digits.TRAINING :][start : start + n]


def target(logit_scale: float = 1.0) -> Target:
    """Trained anew, the same bytes every time."""
    with torch.random.fork_rng():
        whole = make_target(digits.trained(), "digits", "trained here")
    return prepare(whole, images(8), logit_scale=logit_scale)
