"""Loss, margin and confidence from logits, without cancellation for confident models."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from flatguard.geometry.precision import wide


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    r"""$-\log p_y = \log(1 + \sum_{j \ne y} e^{z_j - z_y})$, without rounding to 0.

    Args:
        logits: `(n, k)`.
        labels: `(n,)` int64 in 0 .. k - 1.

    Returns:
        `(n,)`, float64; positive down to 1e-300, where log-softmax gives exactly 0 from a
        logit gap of 37 on.
    """
    others, own = _split(logits, labels)
    return F.softplus((others - own[:, None]).logsumexp(dim=1), threshold=700.0)


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    r"""$z_y - \max_{j \ne y} z_j$, `(n,)` float64: positive exactly if the class is correct."""
    others, own = _split(logits, labels)
    return own - others.amax(dim=1)


def confidence(logits: Tensor) -> Tensor:
    """The largest softmax probability of each row, `(n,)` float64."""
    return wide(logits).softmax(dim=1).amax(dim=1)


def _split(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    z = wide(logits)
    index = labels[:, None]
    return z.scatter(1, index, float("-inf")), z.gather(1, index)[:, 0]
