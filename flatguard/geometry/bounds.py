r"""Bounds on the rise of the loss: that of Walter et al. (2026), and a valid one.

**Explanatory, not a certificate.** The printed bound (Propositions 8 and 9) drops a factor
$\|w\|^3$ from its remainder and can be violated. The other bound holds for any linear head, but
needs the distance in feature space, which is measured and not bounded.

With $\Delta \le L \delta / r$ (Lemma 7), Proposition 8 reads

$$\ell(\xi) - \ell(x) \le b \Delta^2 + a \Delta^3, \qquad b = \tfrac{\kappa}{2}, \quad
  a = \tfrac{k m L^3}{24} ,$$

and Proposition 9 solves $b \Delta^2 + a \Delta^3 = \epsilon$ for $\delta = r \Delta / L$. The
appendix does so by a closed form with slips ($p^3/9$ for $p^3/27$, and $\alpha = a/b$ for $b/a$);
here the root is found numerically.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from flatguard.geometry.decision import cross_entropy
from flatguard.geometry.precision import wide
from flatguard.geometry.sharpness import log_sum_p_one_minus_p

THIRD = math.sqrt(2.0) / (18.0 * math.sqrt(3.0))
r"""$\tfrac16 \cdot \tfrac{\sqrt2}{3 \sqrt3}$: the third cumulant of a variable whose values span
R is at most $R^3 / (6 \sqrt 3)$, and those of a unit vector span at most $\sqrt 2$."""

_NEWTON_STEPS = 60
NOT_A_CERTIFICATE = "explanatory, not a certificate"


def largest_step(linear: Tensor, quadratic: Tensor, cubic: Tensor, epsilon: float) -> Tensor:
    r"""The $t > 0$ with $c_1 t + c_2 t^2 + c_3 t^3 = \epsilon$, for coefficients of at least 0.

    The polynomial is increasing and convex, so Newton's method from a point above the root
    converges monotonically. Each term alone gives such a point, and the smallest of these is at
    most three times the root.

    Args:
        linear, quadratic, cubic: $c_1, c_2, c_3$, of shapes that broadcast.
        epsilon: positive.

    Returns:
        float64; inf where all three are 0; NaN where one is NaN.

    Raises:
        ValueError: for a negative coefficient, or an epsilon that is not positive.

    Error: the polynomial at the result is ε within 1e-12 of it.
    """
    c1, c2, c3 = torch.broadcast_tensors(wide(linear), wide(quadratic), wide(cubic))
    if any(bool((c < 0).any()) for c in (c1, c2, c3)) or not 0 < epsilon < math.inf:
        raise ValueError("expected coefficients of at least 0 and a positive epsilon")
    single = [(epsilon / c1), (epsilon / c2).sqrt(), (epsilon / c3).pow(1 / 3)]
    t = torch.stack(single).amin(dim=0)
    for _ in range(_NEWTON_STEPS):
        value = ((c3 * t + c2) * t + c1) * t - epsilon
        slope = (3 * c3 * t + 2 * c2) * t + c1
        after = torch.where(slope > 0, t - value / slope, t)
        if torch.equal(after, t):
            break
        t = torch.where(after.isfinite(), after, t)
    missing = c1.isnan() | c2.isnan() | c3.isnan()
    return torch.where(missing, torch.nan, t)


@dataclass(frozen=True)
class PrintedBound:
    """Proposition 8 for n samples.

    Attributes:
        kappa: `(n,)`, relative sharpness at the clean images.
        lipschitz: `(n,)`, L of the feature extractor near each, however it was estimated.
        radius: `(n,)`, r = ‖φ(x)‖.
        classes, features: k and m.
    """

    kappa: Tensor
    lipschitz: Tensor
    radius: Tensor
    classes: int
    features: int

    @property
    def quadratic(self) -> Tensor:
        r"""$b = \kappa / 2$, `(n,)`."""
        return wide(self.kappa) / 2.0

    @property
    def cubic(self) -> Tensor:
        r"""$a = k m L^3 / 24$, `(n,)`."""
        return self.classes * self.features * wide(self.lipschitz) ** 3 / 24.0

    def rise(self, delta: Tensor | float) -> Tensor:
        r"""The printed bound on the rise within $\delta$: $b \Delta^2 + a \Delta^3$, `(n,)`."""
        t = wide(self.lipschitz) * delta / wide(self.radius)
        return (self.cubic * t + self.quadratic) * t * t

    def delta(self, epsilon: float) -> Tensor:
        r"""The printed radius within which the loss rises by at most $\epsilon$, `(n,)`."""
        step = largest_step(torch.zeros_like(self.quadratic), self.quadratic, self.cubic, epsilon)
        return wide(self.radius) / wide(self.lipschitz) * step

    def flat_limit(self, epsilon: float) -> Tensor:
        r"""$\lim_{\kappa \to 0} \delta = \frac rL (24 \epsilon / (k m L^3))^{1/3}$, `(n,)`."""
        step = (epsilon / self.cubic).pow(1 / 3)
        return wide(self.radius) / wide(self.lipschitz) * step


@dataclass(frozen=True)
class HeadBound:
    r"""A bound on the rise that holds for any linear head, for n samples.

    $$\ell(\xi) - \ell(x) \le \|\nabla_z \ell\|\, \|W\|_2\, d + \tfrac12 \|W\|_2^2\, d^2 \textstyle
      \sum_j p_j (1 - p_j) + \tfrac{\sqrt2}{18 \sqrt3} \|W\|_2^3\, d^3, \qquad
      d = \|\varphi(\xi) - \varphi(x)\| .$$

    Taylor's theorem in the logits: the second derivative is at most the trace of
    $\mathrm{diag}(p) - pp^\top$, and the third is a third cumulant (see `THIRD`). It also bounds
    $|\ell(\xi) - \ell(x)|$.

    Attributes:
        linear, quadratic: `(n,)`, the first two coefficients of d.
        cubic: the third one, the same for all samples.
    """

    linear: Tensor
    quadratic: Tensor
    cubic: Tensor

    @classmethod
    def of(cls, logits: Tensor, labels: Tensor, weight: Tensor, scale: float = 1.0) -> HeadBound:
        """From the head's output at the clean images.

        Args:
            logits: `(n, k)`.
            labels: `(n,)` int64.
            weight: `(k, m)`, W.
            scale: the factor between the layer's output and the logits.
        """
        norm = scale * torch.linalg.matrix_norm(wide(weight), ord=2)
        slope = logit_gradient_norm(logits, labels) * norm
        bend = 0.5 * norm**2 * log_sum_p_one_minus_p(logits).exp()
        return cls(slope, bend, THIRD * norm**3)

    def rise(self, distance: Tensor) -> Tensor:
        """The bound for features that moved by `(..., n)` distances d."""
        d = wide(distance)
        return ((self.cubic * d + self.quadratic) * d + self.linear) * d

    def distance(self, epsilon: float) -> Tensor:
        r"""How far the features may move before the bound exceeds $\epsilon$, `(n,)`."""
        return largest_step(self.linear, self.quadratic, self.cubic, epsilon)


def logit_gradient_norm(logits: Tensor, labels: Tensor) -> Tensor:
    r"""$\|\nabla_z \ell\| = \|p - e_y\|$ of cross-entropy, `(n,)` float64, without cancellation.

    $1 - p_y$ is $1 - e^{-\ell}$ of the loss itself, which a confident model does not round to 0.
    """
    missing = -torch.expm1(-cross_entropy(logits, labels))
    others = wide(logits).softmax(dim=1).scatter(1, labels[:, None], 0.0)
    return (missing.square() + others.square().sum(dim=1)).sqrt()
