"""AutoAttack's own warning flags, from `pyautoattack.checks`, on a few samples of a pair.

What `AutoAttack.run_standard_evaluation` and its APGD look at before and at their first gradient,
at the points where they look: the clean images, and a random start within the radius.
"""

from __future__ import annotations

import sys

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.masking_zoo.judges import Answer, Audited, Judge

SAMPLES = 40
EXPLAINS: dict[str, frozenset[str]] = {
    "zero-gradient": frozenset({"saturation", "unavailable-gradient"}),
    "randomised": frozenset({"stochastic"}),
    "dynamic": frozenset({"unavailable-gradient"}),
}
"""The mechanisms that a flag would be right about; generous where it cannot tell two apart."""


class Warned:
    """A logger that keeps what it is told."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def warning(self, text: str) -> None:
        """Keep it."""
        self.texts.append(text)


def autoattack_flags(model: nn.Module, images: Tensor, labels: Tensor, eps: float) -> list[str]:
    """Which of its flags AutoAttack raises."""
    from pyautoattack import checks

    torch.manual_seed(0)
    images, labels = images[:SAMPLES], labels[:SAMPLES]
    flags = {}
    logger = Warned()
    checks.check_randomized(model, images, labels, bs=len(images), logger=logger)
    flags["randomised"] = bool(logger.texts)
    flags["dynamic"] = _is_dynamic(model, images)
    logger = Warned()
    for gradient in _first_gradients(model, images, labels, eps):
        checks.check_zero_gradients(gradient.contiguous(), logger=logger)
    flags["zero-gradient"] = bool(logger.texts)
    return [name for name, raised in flags.items() if raised]


def _is_dynamic(model: nn.Module, images: Tensor) -> bool:
    from pyautoattack import checks

    before, logger = sys.gettrace(), Warned()
    checks.funcs.update(dict.fromkeys(checks.funcs, 0))
    try:
        checks.check_dynamic(model, images, logger=logger)
    finally:
        sys.settrace(before)
    return bool(logger.texts)


def _first_gradients(model: nn.Module, images: Tensor, labels: Tensor, eps: float) -> list[Tensor]:
    """Of cross-entropy and DLR at APGD's random start; zeros where there is none."""
    start = images + eps * (2 * torch.rand_like(images) - 1)
    found = []
    for loss in (F.cross_entropy, dlr):
        at = start.clamp(0, 1).requires_grad_(True)
        try:
            gradient = torch.autograd.grad(loss(model(at), labels), at)[0]
            found.append(gradient.contiguous())  # the check views it
        except RuntimeError:
            found.append(torch.zeros_like(at))
    return found


def dlr(logits: Tensor, labels: Tensor) -> Tensor:
    """The difference-of-logits ratio (Croce and Hein 2020), summed."""
    ordered, order = logits.sort(dim=1)
    true = logits.gather(1, labels[:, None])[:, 0]
    best_wrong = torch.where(order[:, -1] == labels, ordered[:, -2], ordered[:, -1])
    third = ordered[:, -min(3, ordered.shape[1])]
    return (-(true - best_wrong) / (ordered[:, -1] - third + 1e-12)).sum()


def ask(audited: Audited) -> Answer:
    """An alarm where any flag is raised."""
    flags = autoattack_flags(audited.model, audited.images, audited.labels, audited.eps)
    return Answer(bool(flags), flags)


JUDGE = Judge("AutoAttack's flags", ask, EXPLAINS, "Croce and Hein 2020, its public code", SAMPLES)
