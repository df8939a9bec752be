r"""Relative sharpness of a language model's head at each token, block by block over the vocabulary.

The head of a causal language model is the final linear layer of a classifier with a class for each
token of the vocabulary: $z = W\varphi + b$, and the loss of a target token y is $-\log p_y$. So

$$\kappa = \|W\|_F^2 \, \Bigl(\sum_j p_j (1 - p_j)\Bigr) \, \|\varphi\|^2$$

for each target token, as in `sharpness`. The loss of a whole target is the mean over its tokens,
and the trace is linear, so the κ of the whole target is the mean of its tokens' κ.

A vocabulary has up to some 250,000 tokens. The logits are computed in float64 from the features and
a block of rows of W, reduced, and dropped: neither the logits of all tokens nor a wide copy of W
exists at any time, and no matrix in k². Each block leaves six numbers for each target token: its
top logit and that one's token, the log-sum-exps of the other logits and of twice the other logits,
the target's logit and the log-sum-exp of all but it. Two blocks merge by log-sum-exps, which do not
cancel.

Source: Walter et al. (2026), Eq. (3) and (4), and its Figure 15.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from flatguard.geometry.precision import wide
from flatguard.geometry.sharpness import feature_norm, log_spread

BLOCK = 4096
"""Rows of W that are reduced together: 19 MB in float64 at 576 features."""


@dataclass(frozen=True)
class TokenGeometry:
    """The geometry of the loss at each of n target tokens, `(n,)` each.

    Attributes:
        log_kappa: log κ, float64.
        loss: $-\\log p_y$ in nats, float64.
        confidence: the probability of the most likely token, float64.
        predicted: the most likely token, int64.
    """

    log_kappa: Tensor
    loss: Tensor
    confidence: Tensor
    predicted: Tensor


def token_geometry(
    features: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    log_weight_norm_squared: float,
    block: int = BLOCK,
) -> TokenGeometry:
    r"""κ, loss and confidence at each target token.

    Args:
        features: `(n, d)`, the inputs $\varphi$ of the head where it predicts the targets.
        weight: `(k, d)`, the head's W with k at least 2; the embeddings where they are tied.
        bias: `(k,)`, or None.
        targets: `(n,)` int64 in 0 .. k - 1.
        log_weight_norm_squared: $\log \|W\|_F^2$, as `sharpness.log_weight_norm_squared` has it.
        block: rows of W that are taken together.

    Raises:
        ValueError: if the shapes do not fit, or k is below 2.

    Error: within 1e-6 · max(1, |log κ|) of exact arithmetic on the same features and weights.
    Cost: one product `(n, d) × (d, k)` in float64; memory for `(n + d) · block` numbers.
    """
    k = len(weight)
    if k < 2 or features.ndim != 2 or weight.shape[1:] != features.shape[1:]:
        raise ValueError(
            f"expected features (n, d) and weights (k >= 2, d), got {tuple(features.shape)} and "
            f"{tuple(weight.shape)}"
        )
    phi = wide(features)
    found: _Summary | None = None
    for start in range(0, k, block):
        logits = phi @ wide(weight[start : start + block]).T
        if bias is not None:
            logits += wide(bias[start : start + block])
        one = _Summary.of(logits, targets - start, start)
        found = one if found is None else found.merged(one)
    assert found is not None
    gap = found.log_not_target - found.target
    log_s = found.log_others - found.top
    return TokenGeometry(
        log_weight_norm_squared
        + log_spread(found.top, log_s, found.log_others_squared - 2.0 * found.top)
        + 2.0 * feature_norm(phi).log(),
        F.softplus(gap, threshold=700.0),
        F.sigmoid(-log_s),
        found.predicted,
    )


def log_mean_kappa(log_kappa: Sequence[float]) -> float:
    """The log κ of a whole target from those of its tokens: the logarithm of the mean κ.

    Example:
        >>> round(log_mean_kappa([0.0, math.log(3.0)]), 6) == round(math.log(2.0), 6)
        True
    """
    values = torch.tensor(list(log_kappa), dtype=torch.float64)
    return float(values.logsumexp(0)) - math.log(len(values))


@dataclass(frozen=True)
class _Summary:
    """What is known of the logits of some of the tokens; `(n,)` each.

    Attributes:
        top: the largest logit, and its token, `predicted`.
        log_others: log-sum-exp of the other logits; -inf if there are none.
        log_others_squared: the same of twice the other logits.
        target: the logit of the target; -inf where it is in another block.
        log_not_target: log-sum-exp of all logits but the target's.
    """

    top: Tensor
    predicted: Tensor
    log_others: Tensor
    log_others_squared: Tensor
    target: Tensor
    log_not_target: Tensor

    @classmethod
    def of(cls, logits: Tensor, targets: Tensor, start: int) -> _Summary:
        """Of one block of logits `(n, rows)`, which is changed; `targets` count from `start`."""
        here = (targets >= 0) & (targets < logits.shape[1])
        index = targets.clamp(0, logits.shape[1] - 1)[:, None]
        own = logits.gather(1, index)
        target = torch.where(here, own[:, 0], -torch.inf)
        logits.scatter_(1, index, torch.where(here[:, None], -torch.inf, own))
        log_not_target = logits.logsumexp(dim=1)
        logits.scatter_(1, index, own)
        top, predicted = logits.max(dim=1, keepdim=True)
        logits.scatter_(1, predicted, -torch.inf)
        log_others = logits.logsumexp(dim=1)
        log_squared = logits.mul_(2.0).logsumexp(dim=1)
        return cls(
            top[:, 0], predicted[:, 0] + start, log_others, log_squared, target, log_not_target
        )

    def merged(self, other: _Summary) -> _Summary:
        """Of the tokens of both: the smaller of the two tops joins the others."""
        lower = torch.minimum(self.top, other.top)
        return _Summary(
            torch.maximum(self.top, other.top),
            torch.where(self.top >= other.top, self.predicted, other.predicted),
            _joined(self.log_others, other.log_others, lower),
            _joined(self.log_others_squared, other.log_others_squared, 2.0 * lower),
            torch.maximum(self.target, other.target),
            torch.logaddexp(self.log_not_target, other.log_not_target),
        )


def _joined(*logarithms: Tensor) -> Tensor:
    return torch.stack(logarithms).logsumexp(dim=0)
