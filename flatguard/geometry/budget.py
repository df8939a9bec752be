"""The budget of an attack: a norm, a radius, and what counts as inside."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, get_args

import torch
from torch import Tensor

from flatguard.geometry.precision import wide_type

Norm = Literal["Linf", "L2", "L1", "L0", "none"]
NORMS: tuple[Norm, ...] = get_args(Norm)

RELATIVE_SLACK = 1e-5
ABSOLUTE_SLACK = 1e-7
"""x + δ in float32 is off by up to 6e-8 a pixel; projections by a few ulp of their sum."""


CHUNK_VALUES = 1_000_000


@dataclass(frozen=True)
class Budget:
    """How far an adversarial example may lie from its image.

    Attributes:
        norm: `Linf`, `L2`, `L1`, `L0` (number of changed values) or `none` (no limit).
        eps: the radius for images in [0, 1]; None exactly if the norm is `none`.
    """

    norm: Norm
    eps: float | None

    def contains(self, distance: Tensor) -> Tensor:
        """Which of these distances are at most eps, up to rounding; NaN never is."""
        if self.eps is None:
            return torch.isfinite(distance)
        inside: Tensor = distance <= self.eps * (1.0 + RELATIVE_SLACK) + ABSOLUTE_SLACK
        return inside

    def __str__(self) -> str:
        return "no norm" if self.eps is None else f"{self.norm} {pretty_eps(self.eps)}"


def distance(x: Tensor, reference: Tensor, norm: Norm) -> Tensor:
    """The distance of each sample from its reference; for `none`, Linf.

    Args:
        x: `(n, ...)`.
        reference: the same shape.
        norm: which norm of the flattened difference.

    Returns:
        `(n,)`: L1 and L2 are summed in float64, so that 150,528 values cost no digits.
    """
    return _size((x - reference).abs_().flatten(1), norm)


def _size(difference: Tensor, norm: Norm) -> Tensor:
    """Of each row of magnitudes."""
    size: Tensor
    if norm in ("Linf", "none"):
        size = difference.amax(dim=1)  # vector_norm takes twenty times as long on a CPU
    elif norm == "L0":
        changed = (difference != 0).sum(dim=1).float()
        size = torch.where(difference.isnan().any(dim=1), math.nan, changed)
    else:
        order = 1 if norm == "L1" else 2
        wide = wide_type(difference)
        size = torch.linalg.vector_norm(difference, ord=order, dim=1, dtype=wide)
    return size


def within(images: Tensor, clean: Tensor, budget: Budget) -> Tensor:
    """Which images are admissible: finite, in the box [0, 1], and within the budget."""
    flat = images.flatten(1)
    in_box = ((flat >= 0) & (flat <= 1)).all(dim=1)
    return in_box & budget.contains(distance(images, clean, budget.norm))


class Distances:
    """How far rows are from the images that they are said to come from.

    Args:
        references: `(n, ...)`.

    Cost: the differences of a few rows exist at once, `CHUNK_VALUES` of them, in memory that is
    kept from call to call: to ask the system for it anew costs more than the arithmetic.
    """

    def __init__(self, references: Tensor):
        self._references = references.flatten(1)
        self._memory = references.new_empty(0)

    def to(self, x: Tensor, index: Tensor, norms: tuple[Norm, ...]) -> list[Tensor]:
        """The distance of row i of `x` from `references[index[i]]`, `(m,)` in each norm."""
        if not len(x):
            return [torch.zeros(0, device=x.device) for _ in norms]
        size = max(1, CHUNK_VALUES // max(1, x[0].numel()))
        parts: list[list[Tensor]] = [[] for _ in norms]
        for rows, numbers in zip(x.split(size), index.split(size), strict=True):
            difference = self._difference(rows.flatten(1), numbers)
            for part, norm in zip(parts, norms, strict=True):
                part.append(_size(difference, norm))
        return [torch.cat(part) if len(part) > 1 else part[0] for part in parts]

    def _difference(self, rows: Tensor, numbers: Tensor) -> Tensor:
        if self._memory.numel() < rows.numel():
            self._memory = self._references.new_empty(rows.numel())
        chosen = self._memory[: rows.numel()].view(len(rows), -1)
        torch.index_select(self._references, 0, numbers, out=chosen)
        if rows.dtype != chosen.dtype:
            return (rows - chosen).abs_()
        return torch.sub(rows, chosen, out=chosen).abs_()


def parse_eps(text: str) -> float:
    """`"8/255"`, `"0.03"` or `"1e-3"` as the nearest float; the quotient is exact before rounding.

    Raises:
        ValueError: with one line that says what was expected.
    """
    value = parse_quotient(text)
    if value is None:
        raise ValueError(f"eps: expected a number such as 8/255 or 0.031, got {text!r}")
    if not 0 < value < math.inf:
        raise ValueError(f"eps: expected a positive number such as 8/255, got {text!r}")
    return value


def parse_quotient(text: str) -> float | None:
    """`a` or `a/b` as the nearest float of the exact quotient; None if it is no number."""
    parts = text.strip().split("/")
    try:
        # float() first: it ends 1e99999999 at once, where exact arithmetic would not.
        if len(parts) > 2 or not all(math.isfinite(float(part)) for part in parts):
            return None
        if any(float(part) == 0 for part in parts[1:]):
            return None
        if float(parts[0]) == 0:
            return 0.0
        exact = Fraction(parts[0]) / (Fraction(parts[1]) if len(parts) == 2 else 1)
        return float(exact)
    except (ValueError, OverflowError):
        return None


def pretty_eps(eps: float) -> str:
    """`0.5` where that is exact, else `8/255` where that is, else six digits."""
    if float(f"{eps:.3g}") == eps:
        return f"{eps:g}"
    in_255ths = Fraction(round(eps * 255 * 8), 8)
    if float(in_255ths / 255) == eps:
        return f"{float(in_255ths):g}/255"
    return f"{eps:g}"
