"""Computes the columns of the trajectory from recorded model calls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import lru_cache

import torch
from torch import Tensor

from flatguard.geometry.decision import confidence, cross_entropy, margin
from flatguard.geometry.measures import LOGIT_SHARPNESS
from flatguard.geometry.named_losses import NamedLoss
from flatguard.geometry.sharpness import feature_norm, log_sum_p_one_minus_p
from flatguard.recording.attribution import UNASSIGNED, Assignment
from flatguard.targets.head import FinalMap, as_matrix, relative_mismatch

COLUMNS = (
    "loss", "log_kappa", "trace", "feature_norm", "confidence", "margin", "prediction",
    "linf", "l2",
)  # fmt: skip
"""The measured columns of a trajectory, in order; `trajectory.py` describes them."""


def measured_columns(has_head: bool, losses: Sequence[str] = ()) -> list[str]:
    """The measured columns of a model with or without a proven head, and of these losses."""
    further = [] if has_head else [LOGIT_SHARPNESS.column]
    return [*COLUMNS, *further, *(column for name in losses for column in loss_columns(name))]


def loss_columns(name: str) -> tuple[str, str, str]:
    """The columns of an additional loss: its value, its trace's sign and log |trace|."""
    return f"{name}_loss", f"{name}_trace_sign", f"{name}_log_trace"


@dataclass(frozen=True)
class HeadCall:
    """The head's input, as `(m,)` norms, and its output, `(m, k)`, in one call of the model."""

    feature_norm: Tensor
    output: Tensor

    @classmethod
    def of(cls, features: Tensor, output: Tensor) -> HeadCall | None:
        """None if the layer's input or output is not one vector per row."""
        flat, given = as_matrix(features), as_matrix(output)
        return None if flat is None or given is None else cls(feature_norm(flat), given.clone())


@dataclass(frozen=True)
class Seen:
    """The raw values of recorded calls, before anything is computed; one row per image.

    Many calls are measured at once: with ten classes, arithmetic on the rows of one call is
    mostly overhead.

    Attributes:
        sample: `(m,)`, the index of the row's clean image, or `UNASSIGNED`.
        distances: `(m, 2)` float64, from that image in Linf and L2; NaN if there is none.
        logits: `(m, k)`.
        head_output: `(m, k)`; NaN if the head was not called.
        feature_norm: `(m,)`; NaN if the head was not called.
    """

    sample: Tensor
    distances: Tensor
    logits: Tensor
    head_output: Tensor
    feature_norm: Tensor

    @classmethod
    def of(cls, assigned: Assignment, logits: Tensor, head_call: HeadCall | None) -> Seen:
        """One call; the tensors are copies, which the attack cannot change later."""
        distances = torch.stack([assigned.linf, assigned.l2], dim=1)
        if head_call is not None and head_call.output.shape == logits.shape:
            output, norm = head_call.output, head_call.feature_norm
        else:
            output = torch.full_like(logits, torch.nan)
            norm = torch.full_like(assigned.l2, torch.nan)
        return cls(assigned.sample, distances, logits.clone(), output, norm)

    @classmethod
    def joined(cls, calls: Sequence[Seen]) -> Seen:
        """The rows of several calls with the same number of classes."""
        parts = [getattr(call, field.name) for field in fields(cls) for call in calls]
        n = len(calls)
        return cls(*(torch.cat(parts[i : i + n]) for i in range(0, len(parts), n)))


def measure(
    seen: Seen,
    labels: Tensor,
    head: FinalMap | None,
    log_weight_norm_squared: float,
    losses: Sequence[NamedLoss] = (),
) -> Tensor:
    """Measure every row.

    Args:
        seen: m rows.
        labels: `(n,)`, of the clean images.
        head: the proven head, or None.
        log_weight_norm_squared: log ‖W‖² of the head.
        losses: additional losses, each with its three `loss_columns`.

    Returns:
        `(m, c)` float64, the `measured_columns` in order; NaN where a value was not measured: in
        unassigned rows, values that need a label or a clean image; if the head's output does not
        explain the logits, the geometry.
    """
    logits, known = seen.logits, seen.sample != UNASSIGNED
    own = labels[seen.sample.clamp_min(0)]
    proof = _proven(seen, head)
    log_trace, norm = _geometry(logits, proof)
    columns = {
        "loss": _where(known, cross_entropy(logits, own)),
        "log_kappa": log_trace + log_weight_norm_squared,
        "trace": log_trace.exp(),
        "feature_norm": norm,
        "confidence": confidence(logits),
        "margin": _where(known, margin(logits, own)),
        "prediction": logits.argmax(dim=1),
        "linf": seen.distances[:, 0],
        "l2": seen.distances[:, 1],
    }
    if head is None:
        columns[LOGIT_SHARPNESS.column] = log_sum_p_one_minus_p(logits)
    for loss in losses:
        found = _other_loss(loss, logits, own, proof)
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
    # A trace depends on the features' norms only, and the norm of (m, 1) features is themselves.
    trace = loss.trace(logits, labels, proof.feature_norm[:, None])
    measured = proof.rows & ~trace.log_abs.isnan()
    log_abs = trace.log_abs + proof.log_scale_squared
    return [values, _where(measured, trace.sign.to(log_abs)), _where(measured, log_abs)]


@dataclass(frozen=True)
class _Proof:
    """‖φ‖, `(m,)`, the rows in which the layer is the head, and 2 log a of its scale."""

    feature_norm: Tensor
    rows: Tensor
    log_scale_squared: float


def _proven(seen: Seen, head: FinalMap | None) -> _Proof | None:
    if head is None:
        return None
    rows = relative_mismatch(seen.logits, seen.head_output, head.scale) <= head.tolerance
    # tr H is with respect to the layer's own weights W; the logits are a W φ.
    return _Proof(seen.feature_norm, rows, _log_squared(head.scale))


@lru_cache
def _log_squared(scale: float) -> float:
    return 2.0 * float(torch.tensor(scale, dtype=torch.float64).log())


def _geometry(logits: Tensor, proof: _Proof | None) -> tuple[Tensor, Tensor]:
    if proof is None:
        missing = torch.full((len(logits),), torch.nan, dtype=torch.float64, device=logits.device)
        return missing, missing
    norm = proof.feature_norm
    log_trace = log_sum_p_one_minus_p(logits) + 2.0 * norm.log() + proof.log_scale_squared
    return _where(proof.rows, log_trace), _where(proof.rows, norm)


def _where(condition: Tensor, values: Tensor) -> Tensor:
    # With `torch.where`, the host waits while NaN is copied to the device.
    return values.masked_fill(~condition, torch.nan)
