"""The same short search behind logits of many scales, and who falls to what.

Multiplying logits moves no decision, so robust accuracy is the same at every scale. What an attack
reports is not: where cross-entropy is saturated, its gradient says nothing.
"""

from __future__ import annotations

import math

import pandas as pd
import torch
from torch import Tensor, nn

from flatguard.checks.gathering.attempts import Attempt, Log, make
from flatguard.checks.gathering.lab import Found, Lab, Rows
from flatguard.checks.gathering.search import Search, search
from flatguard.checks.gathering.sights import Gradient, Outputs, Twin, cross_entropy
from flatguard.geometry.sharpness import log_sum_p_one_minus_p

SCALED = 48
SCALE_STEPS = 10
FACTORS = (0.001, 0.01, 0.1, 1.0, 10.0, 100.0)
"""Times the target's own logits."""


def sweep_scales(lab: Lab) -> Found:
    """Attack some samples behind logits of each scale; show what fell at the best one to all.

    Cost: at most `SCALED` · 6 · (`SCALE_STEPS` + 1) passes, eight times that where the target is
    randomised.
    """
    right = lab.samples.loc[lab.samples["clean_correct"], "sample"].to_numpy()
    log, frames = Log(), []
    for rows in lab.rows(lab.spread(right, SCALED)):
        frames.append(_swept(lab, log, rows))
        lab.said_done(len(rows))
    found = log.found({"steps": SCALE_STEPS})
    if frames:
        found.tables["scales"] = pd.concat(frames, ignore_index=True)
    return found


def _swept(lab: Lab, log: Log, rows: Rows) -> pd.DataFrame:
    examples, fell = [], []
    for factor in FACTORS:
        with lab.seeded(f"scale {factor} {int(rows.sample[0])}"):
            sight = Gradient(scaled(lab.model, factor), cross_entropy, lab.meter, draws=lab.draws)
            found = search(lab, sight, rows, Search(SCALE_STEPS, random_start=True))
            examples.append(found.images)
            fell.append(lab.confirmed(found.images, rows, found.fell))
    best = max(range(len(FACTORS)), key=lambda index: int(fell[index].sum()))
    _note(lab, log, rows, examples[best], fell[best])
    clean, shown = lab.logits(rows.images), lab.logits(examples[best])
    kappa = torch.from_numpy(
        lab.samples.loc[rows.sample.cpu().numpy(), "clean_log_kappa"].to_numpy("float64")
    )
    frames = [
        pd.DataFrame(
            {
                "sample": rows.sample.cpu().numpy(),
                "factor": factor,
                "log_kappa": (kappa + rise_of_log_kappa(clean, factor).cpu()).numpy(),
                "fell": fell[index].cpu().numpy(),
                "fell_to_best": ((shown * factor).argmax(dim=1) != rows.labels).cpu().numpy(),
            }
        )
        for index, factor in enumerate(FACTORS)
    ]
    swept: pd.DataFrame = pd.concat(frames, ignore_index=True)
    return swept


def _note(lab: Lab, log: Log, rows: Rows, examples: Tensor, fell: Tensor) -> None:
    """What fell here counts as any other attempt does: the corrected number is the worst case."""
    survived = torch.from_numpy(
        lab.samples.loc[rows.sample.cpu().numpy(), "robust"].to_numpy(bool).copy()
    )
    kept = survived.nonzero()[:, 0].to(fell.device)
    if len(kept):
        attempt = Attempt(
            "other scales", "temperature", lambda _: (examples[kept], fell[kept])
        )  # fmt: skip
        make(lab, log, attempt, rows[kept])


def scaled(model: nn.Module, factor: float) -> Twin:
    """The target with its logits multiplied, in their own precision."""

    def twin(images: Tensor) -> Outputs:
        logits = model(images) * factor
        return Outputs(logits, logits)

    return twin


def rise_of_log_kappa(logits: Tensor, factor: float) -> Tensor:
    """By how much log κ rises where W and b are multiplied by `factor`, `(n,)` float64.

    ‖W‖² grows by the factor's square, Σ p (1 - p) is the one of the multiplied logits, and the
    features stay as they are.
    """
    wide = logits.double()
    there, here = log_sum_p_one_minus_p(wide * factor), log_sum_p_one_minus_p(wide)
    return 2.0 * math.log(factor) + there - here
