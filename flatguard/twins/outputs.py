"""What a twin of a model gives for a batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True)
class Outputs:
    """The outputs of a twin for a batch.

    Attributes:
        decides: `(n, k)`, the logits whose argmax is the decision.
        loss: `(n, k)`, the logits that the loss is computed from; mostly the same.
        scale_free: whether `loss` already has a spread of about 1 and needs no temperature.
    """

    decides: Tensor
    loss: Tensor
    scale_free: bool = False


Twin = Callable[[Tensor], Outputs]


def plain(model: nn.Module) -> Twin:
    """The target itself."""

    def twin(images: Tensor) -> Outputs:
        logits = model(images)
        return Outputs(logits, logits)

    return twin
