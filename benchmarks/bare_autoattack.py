"""AutoAttack standard, called directly, with all that it asks the model counted."""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmarks.contenders import counted

BATCH = 100


@dataclass(frozen=True)
class Left:
    """What AutoAttack leaves.

    Attributes:
        right: the samples that stay right.
        forwards: rows that went forward.
        backwards: rows whose gradient came back.
        seconds: processor time.
    """

    right: list[int]
    forwards: int
    backwards: int
    seconds: float

    @property
    def passes(self) -> int:
        """Forward and backward passes of one image."""
        return self.forwards + self.backwards


def autoattack_standard(
    module: nn.Module, images: Tensor, labels: Tensor, eps: float, seed: int
) -> Left:
    """Attack a copy of the module in ℓ∞."""
    from pyautoattack import AutoAttack

    model, began = copy.deepcopy(module), time.process_time()
    count = counted(model)
    attack = AutoAttack(model, norm="Linf", eps=eps, seed=seed, version="standard", device="cpu")
    attack.verbose = False
    found = attack.run_standard_evaluation(images, labels, batch_size=BATCH)
    seconds = time.process_time() - began
    examples = found[0] if isinstance(found, tuple) else found
    if (examples - images).abs().max() > eps + 1e-6:
        raise AssertionError("AutoAttack left the budget")
    with torch.no_grad():
        right = module(examples).argmax(dim=1) == labels
    rows = right.nonzero()[:, 0].tolist()
    return Left(rows, count.forwards, count.backwards, round(seconds, 1))
