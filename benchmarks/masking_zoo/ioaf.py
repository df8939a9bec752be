"""The six Indicators of Attack Failure, from the recorded run and a few further model calls.

M. Pintor, L. Demetrio, A. Sotgiu, A. Demontis, N. Carlini, B. Biggio and F. Roli, *Indicators of
Attack Failure: Debugging and Improving Optimization of Adversarial Examples*, NeurIPS 2022
(arXiv:2106.09947). Numbers as in their code: 5% of the loss's range over the last ten steps for
incomplete optimisation, and changes of the loss of at most 1 a sample for unstable predictions.
They look at single samples; here an indicator is the mean over the samples, and is raised above
`RAISED`. I3 and I4 are of the samples that the attack failed on: elsewhere there is no failure to
explain. Their noise has 100 draws, ours `DIRECTIONS`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from benchmarks.masking_zoo.judges import STEPS, Answer, Audited, Judge, gradient, losses

SAMPLES = 20
DIRECTIONS = 20
INCOMPLETE, LAST_STEPS = 0.05, 10
RAISED = 0.1
EXPLAINS: dict[str, frozenset[str]] = {
    "unavailable": frozenset({"saturation", "unavailable-gradient"}),
    "unstable": frozenset({"shattered-gradient", "stochastic", "rugged-loss"}),
    "silent": frozenset({"rugged-loss", "stochastic"}),
    "incomplete": frozenset({"rugged-loss"}),
    "transfer": frozenset({"stochastic"}),
    "unconstrained": frozenset({"saturation", "unavailable-gradient", "rugged-loss"}),
}
"""The mechanisms that an indicator would be right about; generous where it cannot tell."""


@dataclass(frozen=True)
class Indicators:
    """Shares between 0 and 1.

    Attributes:
        unavailable: I1, samples whose input gradient is exactly zero or missing.
        unstable: I2, relative change of the loss under noise, at most 1 a sample.
        silent: I3, failed samples that were fooled on the way.
        incomplete: I4, failed samples whose loss still rose over the last ten steps.
        transfer: I5, samples fooled in the attack's last call but not when measured again.
        unconstrained: I6, samples that survive even without a radius.
    """

    unavailable: float
    unstable: float
    silent: float
    incomplete: float
    transfer: float
    unconstrained: float

    def raised(self) -> list[str]:
        """The names of those above their threshold."""
        return [name for name, value in vars(self).items() if value > RAISED]


def ask(audited: Audited) -> Answer:
    """An alarm where any indicator is raised."""
    found = indicators(audited)
    return Answer(bool(found.raised()), found.raised(), dict(vars(found)))


def indicators(audited: Audited) -> Indicators:
    """All six; those of the path are 0 where no attack could run."""
    model, (images, labels) = audited.model, audited.right(SAMPLES)
    silent, incomplete, transfer = (0.0, 0.0, 0.0) if audited.run is None else _of_path(audited.run)
    if not len(labels):
        return Indicators(0.0, 0.0, silent, incomplete, transfer, 0.0)
    return Indicators(
        unavailable=_unavailable(model, images, labels),
        unstable=_unstable(model, images, labels, audited.eps),
        silent=silent,
        incomplete=incomplete,
        transfer=transfer,
        unconstrained=_unconstrained(model, images, labels),
    )


def _gradient(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    found = gradient(model, images, labels)
    return torch.zeros_like(images) if found is None else found


def _unavailable(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    return float((_gradient(model, images, labels).flatten(1) == 0).all(dim=1).double().mean())


def _unstable(model: nn.Module, images: Tensor, labels: Tensor, eps: float) -> float:
    with torch.no_grad():
        reference = losses(model, images, labels)
        divisor = torch.where(reference == 0, torch.ones_like(reference), reference.abs())
        changes = []
        for _ in range(DIRECTIONS):
            moved = images + eps * (torch.rand_like(images) - 0.5)
            changes.append((losses(model, moved, labels) - reference).abs() / divisor)
    return float(torch.stack(changes).mean(dim=0).clamp(max=1.0).mean())


def _unconstrained(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    moved, standing = images.clone(), torch.ones(len(labels), dtype=torch.bool)
    for _ in range(STEPS):
        rows = standing.nonzero()[:, 0]
        if not len(rows):
            break
        at = moved[rows]
        moved[rows] = (at + 0.1 * _gradient(model, at, labels[rows]).sign()).clamp(0, 1)
        with torch.no_grad():
            standing[rows] = model(moved[rows]).argmax(dim=1) == labels[rows]
    return float(standing.double().mean())


def _of_path(run: Any) -> tuple[float, float, float]:
    """I3, I4 and I5 from the recorded calls and the table of samples."""
    samples = run.samples[run.samples["clean_correct"]]
    rows = run.trajectory.dropna(subset=["sample"])
    rows = rows[~rows["bookkeeping"]].merge(samples[["sample", "label", "robust"]], on="sample")
    if rows.empty:
        return 0.0, 0.0, 0.0
    rows = rows.sort_values(["sample", "call"])
    fooled = rows["prediction"] != rows["label"]
    ever, last = fooled.groupby(rows["sample"]).any(), fooled.groupby(rows["sample"]).last()
    robust = rows.groupby("sample")["robust"].first()
    failed = rows[rows["robust"]]
    still_rising = [_rises(loss) for _, loss in failed.groupby("sample")["loss"]]
    incomplete = float(np.mean(still_rising)) if still_rising else 0.0
    silent = float(ever[robust].mean()) if robust.any() else 0.0
    return silent, incomplete, float((last & robust).mean())


def _rises(losses: pd.Series) -> bool:
    """Whether the best loss so far, over its range, still grows at the end."""
    best = np.maximum.accumulate(losses.to_numpy(dtype=float))
    span = best.max() - losses.min()
    if not np.isfinite(span) or span == 0:
        return False
    last = best[-LAST_STEPS:]
    return bool((last.max() - last.min()) / span > INCOMPLETE)


JUDGE = Judge("IoAF", ask, EXPLAINS, "Pintor et al. 2022", SAMPLES)
