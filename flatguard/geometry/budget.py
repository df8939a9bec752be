"""The budget of an attack: a norm, a radius, and the distances that are within it.

Imports no torch: the command line reads budgets before it loads a model.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Literal, get_args

from flatguard.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

Norm = Literal["Linf", "L2", "L1", "L0", "none"]
NORMS: tuple[Norm, ...] = get_args(Norm)

_RELATIVE_SLACK, _ABSOLUTE_SLACK = 1e-5, 1e-7
"""x + δ in float32 is off by up to 6e-8 a pixel; projections by a few ulp of their sum."""


@dataclass(frozen=True)
class Budget:
    """How far an adversarial example may lie from its image.

    Attributes:
        norm: `Linf`, `L2`, `L1`, `L0` (number of changed values) or `none` (no limit).
        eps: the radius for images in [0, 1]; None exactly if the norm is `none`.
    """

    norm: Norm
    eps: float | None

    @property
    def radius(self) -> float:
        """`eps`, where the norm has one.

        Raises:
            ValueError: the norm is `none`.
        """
        if self.eps is None:
            raise ValueError("this budget has no radius")
        return self.eps

    def contains(self, distance: Tensor) -> Tensor:
        """Which of these distances are at most eps, up to rounding; NaN never is."""
        if self.eps is None:
            return distance.isfinite()
        inside: Tensor = distance <= with_rounding(self.eps)
        return inside

    def check_radius(self, values: int) -> None:
        """Refuse a radius within which every image of [0, 1] lies: it is in another unit.

        Args:
            values: of one image: channels times height times width.

        Raises:
            UsageError: with the radius that was meant.
        """
        if self.eps is None:
            return
        largest = {"Linf": 1.0, "L2": math.sqrt(values)}.get(self.norm, float(values))
        if self.eps < largest or (self.eps == largest and self.norm != "Linf"):
            return
        meant = f"{self.eps:g}/255, " if self.eps < 255 * largest and self.norm != "L0" else ""
        usual = {"Linf": "8/255", "L2": "0.5", "L1": "12"}.get(self.norm, "5")
        raise UsageError(
            f"--eps {self.eps:g}: images lie in [0, 1], where no two are farther apart than "
            f"{largest:g} in {self.norm}, so this radius holds every image; expected a radius for "
            f"images in [0, 1], such as {usual}{f'; was {meant[:-2]} meant?' if meant else ''}"
        )

    def __str__(self) -> str:
        return "no norm" if self.eps is None else f"{self.norm} {pretty_eps(self.eps)}"


def with_rounding(eps: float) -> float:
    """The largest distance between float32 images that counts as at most eps."""
    return eps * (1.0 + _RELATIVE_SLACK) + _ABSOLUTE_SLACK


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
