"""Losses by name, in addition to cross-entropy: `focal`, `focal:1.5`, `brier`, `kl:0.1`.

Imports no torch until a loss is computed, because the command line parses these names.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    from torch import Tensor

    from flatguard.geometry.losses import SignedLog

_Kind = Literal["focal", "brier", "kl"]
_FOCAL_GAMMA = 2.0
_KNOWN = "focal, focal:GAMMA, brier and kl:ALPHA"


@dataclass(frozen=True)
class NamedLoss:
    """A loss of the logits, parsed from its name.

    Attributes:
        name: the given name, and the prefix of its columns.
        kind: which loss.
        parameter: gamma of `focal`, the label smoothing alpha of `kl`; 0 for `brier`.
    """

    name: str
    kind: _Kind
    parameter: float = 0.0

    def values(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The loss of `(n, k)` logits at `(n,)` labels, `(n,)` float64."""
        from flatguard.geometry import losses

        if self.kind == "focal":
            return losses.focal_loss(logits, labels, self.parameter)
        if self.kind == "brier":
            return losses.brier_loss(logits, labels)
        return losses.soft_target_loss(logits, labels, self.parameter)

    def trace(self, logits: Tensor, labels: Tensor, features: Tensor) -> SignedLog:
        """Its tr H in the final linear layer with inputs `(n, d)`, `(n,)` each."""
        from flatguard.geometry import losses

        if self.kind == "focal":
            return losses.focal_trace(logits, labels, features, self.parameter)
        if self.kind == "brier":
            return losses.brier_trace(logits, labels, features)
        return losses.soft_target_trace(logits, features)


def parse_loss(text: str) -> NamedLoss:
    """The loss with this name.

    Raises:
        ValueError: lists the known losses, or the range of the parameter.

    Example:
        >>> parse_loss("focal").parameter
        2.0
    """
    name = text.strip()
    kind, colon, written = name.partition(":")
    if kind not in get_args(_Kind):
        raise ValueError(f"expected one of {_KNOWN}, got {text!r}")
    if kind == "brier":
        if colon:
            raise ValueError(f"brier takes no parameter, got {text!r}")
        return NamedLoss(name, "brier")
    if kind == "focal":
        gamma = _number(written) if colon else _FOCAL_GAMMA
        if gamma is None or gamma < 0:
            raise ValueError(f"expected focal:GAMMA with a number of at least 0, got {text!r}")
        return NamedLoss(name, "focal", gamma)
    alpha = _number(written)
    if alpha is None or not 0 <= alpha <= 1:
        raise ValueError(
            f"expected kl:ALPHA with a label smoothing in [0, 1], such as kl:0.1, got {text!r}"
        )
    return NamedLoss(name, "kl", alpha)


def parse_losses(texts: tuple[str, ...]) -> tuple[NamedLoss, ...]:
    """The losses with these names.

    Raises:
        ValueError: as `parse_loss`, and for a repeated name.
    """
    losses = tuple(parse_loss(text) for text in texts)
    names = [loss.name for loss in losses]
    if len(set(names)) < len(names):
        raise ValueError(f"expected each loss once, got {', '.join(names)}")
    return losses


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
