"""One model call turned into a row of numbers for each sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from flatguard.geometry.budget import distances_to
from flatguard.geometry.decision import confidence, cross_entropy, margin
from flatguard.geometry.named_losses import NamedLoss
from flatguard.geometry.sharpness import feature_norm, log_sum_p_one_minus_p
from flatguard.recording.attribution import UNASSIGNED
from flatguard.targets.head import RELATIVE_TOLERANCE, Head, as_matrix, relative_mismatch

COLUMNS = (
    "loss", "log_kappa", "trace", "feature_norm", "confidence", "margin", "prediction",
    "linf", "l2",
)  # fmt: skip
"""The measured columns of a trajectory, in order; see `docs` in `trajectory.py`."""


def loss_columns(name: str) -> tuple[str, str, str]:
    """The columns of a loss beside cross-entropy: its value, its trace's sign and log |trace|."""
    return f"{name}_loss", f"{name}_trace_sign", f"{name}_log_trace"


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
    losses: Sequence[NamedLoss] = (),
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
        losses: beside cross-entropy, each with its three `loss_columns`.

    Returns:
        `(m, len(COLUMNS) + 3 * len(losses))` float64; NaN where a value was not or could not be
        measured: what needs a label or a clean image, in unassigned rows; geometry, where the
        head's output does not explain the logits.
    """
    known = sample != UNASSIGNED
    index = sample.clamp_min(0)
    proof = _proven(logits, head, head_call)
    log_trace, norm = _geometry(logits, proof)
    linf, l2 = _distances(images, clean, index)
    columns = {
        "loss": _where(known, cross_entropy(logits, labels[index])),
        "log_kappa": log_trace + log_weight_norm_squared,
        "trace": log_trace.exp(),
        "feature_norm": norm,
        "confidence": confidence(logits),
        "margin": _where(known, margin(logits, labels[index])),
        "prediction": logits.argmax(dim=1),
        "linf": _where(known, linf),
        "l2": _where(known, l2),
    }
    for loss in losses:
        found = _other_loss(loss, logits, labels[index], proof)
        for name, values in zip(loss_columns(loss.name), found, strict=True):
            columns[name] = _where(known, values)
    return torch.stack([values.to(torch.float64) for values in columns.values()], dim=1)


def _other_loss(
    loss: NamedLoss, logits: Tensor, labels: Tensor, proof: _Proof | None
) -> list[Tensor]:
    """The loss, its trace's sign and its log |trace|, `(m,)` each."""
    values = loss.values(logits, labels)
    if proof is None:
        missing = torch.full_like(values, torch.nan)
        return [values, missing, missing]
    trace = loss.trace(logits, labels, proof.features)
    measured = proof.rows & ~trace.log_abs.isnan()
    log_abs = trace.log_abs + proof.log_scale_squared
    return [values, _where(measured, trace.sign.to(log_abs)), _where(measured, log_abs)]


@dataclass(frozen=True)
class _Proof:
    """The head's inputs, `(m, d)`, the rows where it is the head, and 2 log a of its scale."""

    features: Tensor
    rows: Tensor
    log_scale_squared: float


def _proven(logits: Tensor, head: Head | None, call: HeadCall | None) -> _Proof | None:
    if head is None or call is None:
        return None
    features, output = as_matrix(call.features), as_matrix(call.output)
    if features is None or output is None or output.shape != logits.shape:
        return None
    rows = relative_mismatch(logits, output, head.scale) <= RELATIVE_TOLERANCE
    # tr H is taken in the layer's own weights W; the logits are a W φ.
    return _Proof(features, rows, _log_squared(head.scale))


@lru_cache
def _log_squared(scale: float) -> float:
    return 2.0 * float(torch.tensor(scale, dtype=torch.float64).log())


def _geometry(logits: Tensor, proof: _Proof | None) -> tuple[Tensor, Tensor]:
    if proof is None:
        missing = torch.full((len(logits),), torch.nan, dtype=torch.float64, device=logits.device)
        return missing, missing
    norm = feature_norm(proof.features)
    log_trace = log_sum_p_one_minus_p(logits) + 2.0 * norm.log() + proof.log_scale_squared
    return _where(proof.rows, log_trace), _where(proof.rows, norm)


def _distances(images: Tensor, clean: Tensor, index: Tensor) -> list[Tensor]:
    """In Linf and in L2."""
    if images.shape[1:] != clean.shape[1:]:
        missing = torch.full((len(images),), torch.nan, dtype=torch.float64, device=images.device)
        return [missing, missing]
    return [size.double() for size in distances_to(images, clean, index, ("Linf", "L2"))]


def _where(condition: Tensor, values: Tensor) -> Tensor:
    return torch.where(condition, values, torch.nan)
