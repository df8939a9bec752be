"""One model call turned into a row of numbers for each sample."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from flatguard.geometry.budget import Norm, distance_to
from flatguard.geometry.decision import confidence, cross_entropy, margin
from flatguard.geometry.sharpness import feature_norm, log_sum_p_one_minus_p
from flatguard.recording.attribution import UNASSIGNED
from flatguard.targets.head import RELATIVE_TOLERANCE, Head, as_matrix, relative_mismatch

COLUMNS = (
    "loss", "log_kappa", "trace", "feature_norm", "confidence", "margin", "prediction",
    "linf", "l2",
)  # fmt: skip
"""The measured columns of a trajectory, in order; see `docs` in `trajectory.py`."""


@dataclass(frozen=True)
class HeadCall:
    """What the head took and gave in one call of the model."""

    features: Tensor
    output: Tensor


def measure(
    images: Tensor,
    logits: Tensor,
    sample: Tensor,
    clean: Tensor,
    labels: Tensor,
    head: Head | None,
    head_call: HeadCall | None,
    log_weight_norm_squared: float,
) -> Tensor:
    """Measure every row of a call.

    Args:
        images: `(m, ...)`, what the model was called with.
        logits: `(m, k)`.
        sample: `(m,)`, the row's index into `clean` and `labels`, or `UNASSIGNED`.
        clean: `(n, ...)`.
        labels: `(n,)`.
        head: the proven head, or None.
        head_call: what the head did in this very call, or None.
        log_weight_norm_squared: log ‖W‖² of the head.

    Returns:
        `(m, len(COLUMNS))` float64; NaN where a value was not or could not be measured: what
        needs a label or a clean image, in unassigned rows; geometry, where the head's output
        does not explain the logits.
    """
    known = sample != UNASSIGNED
    index = sample.clamp_min(0)
    log_trace, norm = _geometry(logits, head, head_call)
    columns = {
        "loss": _where(known, cross_entropy(logits, labels[index])),
        "log_kappa": log_trace + log_weight_norm_squared,
        "trace": log_trace.exp(),
        "feature_norm": norm,
        "confidence": confidence(logits),
        "margin": _where(known, margin(logits, labels[index])),
        "prediction": logits.argmax(dim=1),
        "linf": _where(known, _distance(images, clean, index, "Linf")),
        "l2": _where(known, _distance(images, clean, index, "L2")),
    }
    return torch.stack([columns[name].to(torch.float64) for name in COLUMNS], dim=1)


def _geometry(logits: Tensor, head: Head | None, call: HeadCall | None) -> tuple[Tensor, Tensor]:
    missing = torch.full((len(logits),), torch.nan, dtype=torch.float64, device=logits.device)
    if head is None or call is None:
        return missing, missing
    features, output = as_matrix(call.features), as_matrix(call.output)
    if features is None or output is None or output.shape != logits.shape:
        return missing, missing
    proven = relative_mismatch(logits, output, head.scale) <= RELATIVE_TOLERANCE
    norm = feature_norm(features)
    # tr H is taken in the layer's own weights W; the logits are a W φ.
    a = 2.0 * float(torch.tensor(head.scale, dtype=torch.float64).log())
    log_trace = log_sum_p_one_minus_p(logits) + 2.0 * norm.log() + a
    return _where(proven, log_trace), _where(proven, norm)


def _distance(images: Tensor, clean: Tensor, index: Tensor, norm: Norm) -> Tensor:
    if images.shape[1:] != clean.shape[1:]:
        return torch.full((len(images),), torch.nan, dtype=torch.float64, device=images.device)
    return distance_to(images, clean, index, norm).to(torch.float64)


def _where(condition: Tensor, values: Tensor) -> Tensor:
    return torch.where(condition, values, torch.nan)
