r"""Losses other than cross-entropy, and their traces of the Hessian in the final linear layer.

For a loss of the probabilities $p = \mathrm{softmax}(W\varphi + b)$,
$\mathrm{tr}\,H_W = \|\varphi\|^2\, \mathrm{tr}\,H_z$. Focal and Brier traces are negative in parts
of the space away from a minimum, so each result is a sign and the logarithm of a magnitude.

With t the top class, $v = 1 - p_t$ and the moments of the other classes
$a = \sum_{j \ne t} p_j^2 / v^2$ and $c = \sum_{j \ne t} p_j^3 / v^3$, both in [0, 1], every trace
below is a power of v times a polynomial whose constant term does not cancel; v itself comes from
the log-sum-exp of the other logits. Losses: Walter et al. (2026), Table 1. Derivations: of the
chain rule with $\partial p_i / \partial z_j = p_i (\delta_{ij} - p_j)$ and
$\sum_j \partial^2 p_i / \partial z_j^2 = 2 p_i (\sum_j p_j^2 - p_i)$.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from flatguard.geometry.decision import cross_entropy
from flatguard.geometry.precision import wide
from flatguard.geometry.sharpness import feature_norm, log_sum_p_one_minus_p, log_trace


@dataclass(frozen=True)
class SignedLog:
    """A number as its sign (-1, 0 or 1) and the logarithm of its magnitude, `(n,)` each."""

    sign: Tensor
    log_abs: Tensor

    def value(self) -> Tensor:
        """The number itself; 0 where it underflows."""
        return self.sign * self.log_abs.exp()


def focal_loss(logits: Tensor, labels: Tensor, gamma: float) -> Tensor:
    r"""$-(1 - p_y)^\gamma \log p_y$ of `(n, k)` logits at `(n,)` labels, `(n,)` float64.

    Both factors come from log-sum-exps, so a confident row is small, not 0.
    """
    return (gamma * _Others(logits, labels).log_v).exp() * cross_entropy(logits, labels)


def brier_loss(logits: Tensor, labels: Tensor) -> Tensor:
    r"""$\sum_i (p_i - \delta_{iy})^2 = v^2 (1 + a)$ with $v = 1 - p_y$, `(n,)` float64.

    a is the sum of the other classes' squared shares of v, so nothing cancels.
    """
    others = _Others(logits, labels)
    return (2.0 * others.log_v).exp() * (1.0 + others.second_moment())


def soft_target_loss(logits: Tensor, labels: Tensor, alpha: float) -> Tensor:
    r"""$\mathrm{KL}(q \| p)$ for the smoothed label $q = (1 - \alpha)\, e_y + \alpha / k$.

    Args:
        logits: `(n, k)`.
        labels: `(n,)` int64.
        alpha: the label smoothing, in [0, 1]; 0 is cross-entropy.

    Returns:
        `(n,)` float64, within 1e-15 · log k of 0 at its minimum p = q.

    Raises:
        ValueError: for an alpha outside [0, 1].
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"expected a label smoothing in [0, 1], got {alpha}")
    k = logits.shape[1]
    hard = cross_entropy(logits, labels)
    if alpha == 0:
        return hard  # 0 times the infinite loss of an impossible class would be NaN
    rest = alpha / k
    own = 1.0 - alpha + rest
    negative_entropy = own * math.log(own) + (k - 1) * rest * math.log(rest)
    return (
        (1.0 - alpha) * hard - rest * wide(logits).log_softmax(dim=1).sum(dim=1) + negative_entropy
    )


def soft_target_trace(logits: Tensor, features: Tensor) -> SignedLog:
    r"""$\mathrm{tr}\,H_W$ of $\mathrm{KL}(q \| \mathrm{softmax}(z))$, for any target q.

    $H_z = \mathrm{diag}(p) - pp^\top$ does not depend on q, although the curvature $q_i / p_i^2$ in
    the probabilities is unbounded and fails the assumption of Lemma 12. With a hard target this is
    cross-entropy; label smoothing is a soft target.
    """
    value = log_trace(logits, features)
    return SignedLog(torch.ones_like(value), value)


def focal_trace(logits: Tensor, labels: Tensor, features: Tensor, gamma: float) -> SignedLog:
    r"""$\mathrm{tr}\,H_W$ of the focal loss $-(1 - p_y)^\gamma \log p_y$.

    With $u = p_y$, $v = 1 - u$, $r = -\log u / v$ and a over the classes other than y,

    $$\mathrm{tr}\,H_z = v^{\gamma + 1} \bigl[(1 - a) + u\,\{(1 + a)(1 + 2\gamma +
      \gamma(\gamma - 1) u r) + 2 \gamma r (u (1 + a) - a)\}\bigr].$$

    Args:
        logits: `(n, k)`.
        labels: `(n,)` int64.
        features: `(n, d)`.
        gamma: at least 0; 0 is cross-entropy.

    Raises:
        ValueError: for a negative gamma.
    """
    if gamma < 0:
        raise ValueError(f"expected a focal gamma of at least 0, got {gamma}")
    others = _Others(logits, labels)
    u, a = others.log_own.exp(), others.second_moment()
    # -log(u) / v tends to 1 where v underflows.
    r = torch.where(others.log_v < -36.0, 1.0, -others.log_own / others.log_v.exp())
    inner = (1 + a) * (1 + 2 * gamma + gamma * (gamma - 1) * u * r)
    inner = inner + 2 * gamma * r * (u * (1 + a) - a)
    first, second = others.log_one_minus_second_moment(), others.log_own + inner.abs().log()
    larger = torch.maximum(first, second)  # both terms may underflow, and their sum matters
    bracket = (first - larger).exp() + inner.sign() * (second - larger).exp()
    return _signed_log(bracket, larger + (gamma + 1.0) * others.log_v, features)


def brier_trace(logits: Tensor, labels: Tensor, features: Tensor) -> SignedLog:
    r"""$\mathrm{tr}\,H_W$ of the Brier score $\sum_i (p_i - \delta_{iy})^2$.

    $\mathrm{tr}\,H_z = 6 P_2^2 + 2 P_2 - 8 P_3 - 4 p_y P_2 + 4 p_y^2$ with $P_m = \sum_i p_i^m$,
    expanded in v about a confident prediction, right ($y = t$) or wrong with $b = p_y / v$:

    $$v^2 \bigl[6 + 10a - (12 + 20a + 8c)\,v + 6(1 + a)^2 v^2\bigr],$$
    $$v \bigl[-4(1 + b) + (14 + 14a + 8b + 4b^2)\,v - (16 + 24a + 8c + 4b(1 + a))\,v^2 +
      6(1 + a)^2 v^3\bigr].$$

    Args:
        logits: `(n, k)`.
        labels: `(n,)` int64.
        features: `(n, d)`.
    """
    top = logits.argmax(dim=1)
    others = _Others(logits, top)
    v, a, c = others.log_v.exp(), others.second_moment(), others.third_moment()
    b = others.share_of(labels)
    is_right = top == labels
    right = 6 + 10 * a - (12 + 20 * a + 8 * c) * v + 6 * (1 + a) ** 2 * v**2
    wrong = -4 * (1 + b) + (14 + 14 * a + 8 * b + 4 * b**2) * v
    wrong = wrong - (16 + 24 * a + 8 * c + 4 * b * (1 + a)) * v**2 + 6 * (1 + a) ** 2 * v**3
    bracket = torch.where(is_right, right, wrong)
    power = torch.where(is_right, 2.0, 1.0)
    return _signed_log(bracket, power * others.log_v, features)


class _Others:
    """The classes other than one given class, by logarithms."""

    def __init__(self, logits: Tensor, own: Tensor):
        z = wide(logits)
        z = z - z.amax(dim=1, keepdim=True)
        self._rest = z.scatter(1, own[:, None], float("-inf"))
        self._sum = self._rest.logsumexp(dim=1)
        gap = self._sum - z.gather(1, own[:, None])[:, 0]
        self.log_v = F.logsigmoid(gap)
        self.log_own = F.logsigmoid(-gap)

    def second_moment(self) -> Tensor:
        """a = sum of the others' squared shares of v."""
        return ((2.0 * self._rest).logsumexp(dim=1) - 2.0 * self._sum).exp()

    def log_one_minus_second_moment(self) -> Tensor:
        """log(1 - a), which is the sum of q (1 - q) over the shares q; -inf for two classes."""
        return log_sum_p_one_minus_p(self._rest)

    def third_moment(self) -> Tensor:
        """c = sum of the others' cubed shares of v."""
        return ((3.0 * self._rest).logsumexp(dim=1) - 3.0 * self._sum).exp()

    def share_of(self, labels: Tensor) -> Tensor:
        """Each label's share of v; 0 for the class itself."""
        return (self._rest.gather(1, labels[:, None])[:, 0] - self._sum).exp()


def _signed_log(bracket: Tensor, log_factor: Tensor, features: Tensor) -> SignedLog:
    magnitude = bracket.abs().log() + log_factor + 2.0 * feature_norm(features).log()
    return SignedLog(bracket.sign(), magnitude)
