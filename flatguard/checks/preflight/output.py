"""What a model returns: logits, probabilities, clipped or constant values."""

from __future__ import annotations

import torch
from torch import Tensor

from flatguard.checks.preflight.facts import Output, OutputKind

_FEWEST = 4
"""Different images; fewer show no pattern."""
_CLIPPED = 0.1
"""Logits are clipped where so many of them have one and the same extreme value."""


def output_of(logits: Tensor) -> Output:
    """Describe the outputs for different images, `(n, classes)`; finite rows only."""
    rows = logits.double()
    is_single = rows.shape[1] == 2 and bool((rows[:, 0] == 0).all())
    kind, detail = _kind_of_one(rows[:, 1:]) if is_single else _kind(rows)
    return Output(kind=kind, lowest=float(rows.min()), highest=float(rows.max()), detail=detail)


def _kind(rows: Tensor) -> tuple[OutputKind, str]:
    count = len(rows)
    ordered = rows.sort(dim=1).values
    low, high = ordered[:, :1], ordered[:, -1:]
    two_values = ((rows == low) | (rows == high)).all(dim=1) & (high > low)[:, 0]
    same_ends = bool((ordered == ordered[:1]).all())
    if count >= 2 and bool((rows == rows[:1]).all()):
        return "constant", ""
    if rows.shape[1] > 2 and bool(two_values.all()) and same_ends:
        return "one-hot", ""
    if rows.shape[1] == 2 and count >= _FEWEST and same_ends:
        return "one-hot", ""
    if _are_probabilities(rows):
        return "probabilities", ""
    clipped = _clipped(rows) if count >= _FEWEST else ""
    total = torch.logsumexp(rows, dim=1)
    if bool((rows <= 1e-6).all()) and bool((total.abs() < 1e-3).all()):
        # A confident decision has log-probability 0, so only a lower bound is a clip.
        below = clipped.split(" and ")[0] if clipped.startswith("below") else ""
        return ("clipped", below) if below else ("log-probabilities", "")
    if bool(((rows >= 0) & (rows <= 1)).all()):
        return "sigmoid", ""
    return ("clipped", clipped) if clipped else ("logits", "")


def _kind_of_one(rows: Tensor) -> tuple[OutputKind, str]:
    """The kind of a single logit, `(n, 1)`: the 0 beside it is no clipped value."""
    if len(rows) >= 2 and bool((rows == rows[:1]).all()):
        return "constant", ""
    clipped = _clipped(rows) if len(rows) >= _FEWEST else ""
    return ("clipped", clipped) if clipped else ("logits", "")


def _are_probabilities(rows: Tensor) -> bool:
    """Nothing negative, with the sum 1; or, as in percent, with one sum for all images."""
    total = rows.sum(dim=1)
    if not bool((rows >= 0).all()) or not float(total.mean()):
        return False
    whole = 1.0 if len(rows) < _FEWEST else float(total.mean())
    return bool(((total / whole - 1).abs() < 1e-3).all()) or bool(((total - 1).abs() < 1e-3).all())


def _clipped(rows: Tensor) -> str:
    """Where logits are clipped, in words; nothing where they are not."""
    at_most, at_least = rows.max(), rows.min()
    # The largest logit of an image is what an attack sees; one value in many images is a bound.
    above = int((rows.amax(dim=1) == at_most).sum())
    below = int((rows == at_least).sum())
    found = []
    if below >= max(3, _CLIPPED * rows.numel()) and at_least < at_most:
        found.append(f"below at {float(at_least):g}")
    if above >= max(3, _CLIPPED * len(rows)):
        found.append(f"above at {float(at_most):g}")
    return " and ".join(found)
