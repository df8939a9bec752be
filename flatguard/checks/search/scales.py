"""The same short search behind logits of several scales, and who is fooled at which.

Multiplying the logits changes no decision, so robust accuracy is the same at every scale. What an
attack reports is not: where cross-entropy is saturated, its gradient carries no information.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from flatguard.checks.context import CheckContext, Rows, evenly
from flatguard.checks.evidence import ProbeEvidence
from flatguard.checks.first_look import gradients_are_straight
from flatguard.checks.search.attempts import Attempt, AttemptTable
from flatguard.checks.search.gradients import Gradient, cross_entropy
from flatguard.checks.search.projected_gradient import Search, search
from flatguard.geometry.measures import KAPPA, SharpnessMeasure, measure_in
from flatguard.geometry.sharpness import rise_of_log_kappa
from flatguard.twins.outputs import Outputs, Twin

_SAMPLES = 48
FACTORS = (0.001, 0.01, 0.1, 1.0, 10.0, 100.0)
"""The scales, times the target's own logits."""


def scaled(context: CheckContext, steps: int) -> np.ndarray:
    """The samples that `sweep_scales` attacks; half as many where gradients are straight."""
    most = _SAMPLES // 2 if gradients_are_straight(context) else _SAMPLES
    return evenly(context.clean_correct, most)


def sweep_scales(context: CheckContext, steps: int, batches: Iterable[Rows]) -> ProbeEvidence:
    """Attack some samples behind logits of each scale; show the best scale's examples to all.

    Cost: at most `_SAMPLES` · 6 · (`steps` + 1) passes, eight times that where the target is
    randomised.
    """
    attempts, frames = AttemptTable(), []
    for rows in batches:
        frames.append(_swept(context, attempts, rows, steps))
    found = attempts.evidence({"steps": steps})
    if frames:
        found.tables["scales"] = pd.concat(frames, ignore_index=True)
    return found


def cost_of_scales(context: CheckContext, steps: int) -> float:
    """About how many sample-forwards `sweep_scales` takes."""
    return min(len(context.survivors), _SAMPLES) * len(FACTORS) * steps * context.draws


def _swept(context: CheckContext, attempts: AttemptTable, rows: Rows, steps: int) -> pd.DataFrame:
    examples, fooled = [], []
    for factor in FACTORS:
        with context.seeded(f"scale {factor} {int(rows.sample[0])}"):
            source = Gradient(
                _scaled(context.model, factor), cross_entropy, context.meter, draws=context.draws
            )
            found = search(context, source, rows, Search(steps, random_start=True))
            examples.append(found.images)
            fooled.append(context.confirmed(found.images, rows, found.fooled) > 0.5)
    best = max(range(len(FACTORS)), key=lambda index: int(fooled[index].sum()))
    _add_survivors(context, attempts, rows, examples[best], fooled[best])
    clean, shown = context.logits(rows.images), context.logits(examples[best])
    measure = measure_in(context.samples.columns)
    of_clean = _of_samples(context, rows, f"clean_{measure.column}").to_numpy("float64")
    own = torch.from_numpy(of_clean)
    frames = [
        pd.DataFrame(
            {
                "sample": rows.sample.cpu().numpy(),
                "factor": factor,
                measure.column: (own + _rise(measure, clean, factor).cpu()).numpy(),
                "fooled": fooled[index].cpu().numpy(),
                "fooled_by_best": ((shown * factor).argmax(dim=1) != rows.labels).cpu().numpy(),
            }
        )
        for index, factor in enumerate(FACTORS)
    ]
    swept: pd.DataFrame = pd.concat(frames, ignore_index=True)
    return swept


def _rise(measure: SharpnessMeasure, logits: Tensor, factor: float) -> Tensor:
    rise = rise_of_log_kappa(logits, factor)
    return rise if measure is KAPPA else rise - 2.0 * math.log(factor)  # no weights are scaled


def _add_survivors(
    context: CheckContext, attempts: AttemptTable, rows: Rows, examples: Tensor, fooled: Tensor
) -> None:
    """The best scale counts as an attempt: the corrected accuracy is the worst case over all."""
    survived = torch.from_numpy(_of_samples(context, rows, "robust").to_numpy(bool).copy())
    kept = survived.nonzero()[:, 0].to(fooled.device)
    if len(kept):
        attempt = Attempt("other scales", "temperature", lambda _: (examples[kept], fooled[kept]))
        attempts.add(context, attempt, rows[kept])


def _of_samples(context: CheckContext, rows: Rows, column: str) -> pd.Series:
    values: pd.Series = context.samples.loc[rows.sample.cpu().numpy(), column]
    return values


def _scaled(model: nn.Module, factor: float) -> Twin:
    """The target with its logits multiplied, in their own precision."""

    def twin(images: Tensor) -> Outputs:
        logits = model(images) * factor
        return Outputs(logits, logits)

    return twin
