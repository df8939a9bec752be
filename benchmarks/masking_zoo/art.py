"""The summary indicators of the Adversarial Robustness Toolbox (ART), from a short PGD run.

ART's `SummaryWriterDefault` tracks four indicators of a first version of *Indicators of Attack
Failure* (Pintor et al. 2021) along an attack: whether an example switches back to benign, how far
the attack converged (the angle of the loss curve at its break point), how far the loss diverges,
and the share of steps without gradient. It documents no threshold and no rule that joins them. Here
a sample shows an indicator by the numbers below, which are ours, and an indicator is raised where
more than `RAISED` of the samples show it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.masking_zoo.judges import STEPS, Answer, Audited, Judge

SAMPLES = 20
RAISED = 0.1
STRAIGHT = 2**-0.5
"""A loss curve whose angle is nearer to a straight line than to a right angle did not converge."""

FALLS = 0.1
"""A loss that falls by this share of its range between two steps diverges."""


@dataclass(frozen=True)
class Path:
    """Of each sample at each step: `(steps + 1, n)` losses and mistakes, `(steps, n)` zeros."""

    losses: Tensor
    wrong: Tensor
    zero: Tensor


def ask(audited: Audited) -> Answer:
    """The four indicators."""
    images, labels = audited.right(SAMPLES)
    if not len(labels):
        return Answer.none("no image is classified right")
    path = _attacked(audited, images, labels)
    values = indicators(path)
    named = [name for name, value in values.items() if value > RAISED]
    return Answer(bool(named), named, values)


def indicators(path: Path) -> dict[str, float]:
    """The shares of the samples that show each of them."""
    failed = ~path.wrong[-1]
    span = (path.losses.max(dim=0).values - path.losses.min(dim=0).values).clamp(min=1e-12)
    falls = ((path.losses[:-1] - path.losses[1:]) / span > FALLS).any(dim=0)
    return {
        "silent": float((path.wrong.any(dim=0) & failed).double().mean()),
        "straight": float((failed & (_break_point(path.losses) > STRAIGHT)).double().mean()),
        "diverging": float((failed & falls).double().mean()),
        "zero": float(path.zero.double().mean()),
    }


def _break_point(curves: Tensor) -> Tensor:
    """|cos| of the angle where the loss curve is farthest from the line between its ends.

    The curve is scaled to the unit square; a loss that does not rise at all has no angle, and 0.
    """
    rise = curves[-1] - curves[0]
    y = (curves - curves[0]) / torch.where(rise == 0, torch.ones_like(rise), rise)
    x = torch.linspace(0, 1, len(curves), dtype=y.dtype)[:, None].expand_as(y)
    inner = (y - x).abs()[1:-1].argmax(dim=0) + 1
    at = inner[None]
    px, py = x.gather(0, at)[0], y.gather(0, at)[0]
    cosine = (px * (px - 1) + py * (py - 1)) / (
        (px**2 + py**2).sqrt() * ((1 - px) ** 2 + (1 - py) ** 2).sqrt()
    ).clamp(min=1e-12)
    return torch.where(rise > 0, cosine.abs(), torch.zeros_like(cosine))


def _attacked(audited: Audited, images: Tensor, labels: Tensor) -> Path:
    """PGD as it is audited: from the clean image, signed steps."""
    moved = images.clone()
    curve, wrong, zero = [], [], []
    for _ in range(STEPS):
        at = moved.clone().requires_grad_(True)
        logits = audited.model(at)
        each = F.cross_entropy(logits, labels, reduction="none")
        try:
            found = torch.autograd.grad(each.sum(), at)[0].nan_to_num()
        except RuntimeError:
            found = torch.zeros_like(moved)
        curve.append(each.detach())
        wrong.append(logits.detach().argmax(dim=1) != labels)
        zero.append((found.flatten(1) == 0).all(dim=1))
        moved = moved + audited.eps / 4 * found.sign()
        moved = torch.min(torch.max(moved, images - audited.eps), images + audited.eps).clamp(0, 1)
    with torch.no_grad():
        logits = audited.model(moved)
    curve.append(F.cross_entropy(logits, labels, reduction="none"))
    wrong.append(logits.argmax(dim=1) != labels)
    return Path(torch.stack(curve).double(), torch.stack(wrong), torch.stack(zero))


JUDGE = Judge(
    "ART",
    ask,
    {
        "silent": frozenset({"rugged-loss", "stochastic"}),
        "straight": frozenset({"rugged-loss"}),
        "diverging": frozenset({"rugged-loss", "shattered-gradient", "stochastic"}),
        "zero": frozenset({"saturation", "unavailable-gradient"}),
    },
    "ART's summary writer, after Pintor et al. 2021 (arXiv:2106.09947v1)",
    SAMPLES,
)
