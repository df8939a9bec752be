r"""Scores of one forward pass: relative sharpness, and the scores that it is compared with.

All are computed in the log domain, because they differ most for confident models. With the top
class t and $S = \sum_{j \ne t} e^{z_j - z_t}$, the probability $p_t$ rounds to 1 in float64 from a
gap of 37 on, while $\log(1 - p_t) = \log S - \log(1 + S)$ stays exact. The logarithm keeps the
order of the scores, so the ROC curve is that of the plain formula wherever that formula is exact.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from flatguard.environment.devices import device_of
from flatguard.errors import ModelError
from flatguard.geometry.decision import margin
from flatguard.geometry.measures import KAPPA, LOGIT_SHARPNESS, SharpnessMeasure
from flatguard.geometry.precision import wide
from flatguard.geometry.sharpness import feature_norm, log_sum_p_one_minus_p, log_trace
from flatguard.targets.first_call import model_errors
from flatguard.targets.head import FinalMap, as_matrix, relative_mismatch
from flatguard.targets.target import Target

LOG_KAPPA = "log-kappa"
LARGEST = 1e300
"""In place of an infinite score, which a logit of -inf gives."""


@dataclass(frozen=True)
class ScoredPass:
    """The score of one forward pass over n images; differentiable if the pass was.

    Attributes:
        logits: `(n, k)`.
        score: `(n,)` float64, log κ, or log logit sharpness where the target has no proven head;
            NaN where the head's output does not explain the logits.
    """

    logits: Tensor
    score: Tensor

    @property
    def predicted(self) -> Tensor:
        """`(n,)` int64."""
        return self.logits.argmax(dim=1)


@dataclass(frozen=True)
class ForwardPass:
    """The result of one forward pass over n images; differentiable if the pass was.

    Attributes:
        logits: `(n, k)`.
        features: `(n, d)`, the inputs φ of the head.
        log_kappa: `(n,)` float64; NaN where the head's output does not explain the logits.
    """

    logits: Tensor
    features: Tensor
    log_kappa: Tensor

    @property
    def predicted(self) -> Tensor:
        """`(n,)` int64."""
        return self.logits.argmax(dim=1)


def head_of(target: Target) -> FinalMap:
    """The target's proven head.

    Raises:
        ModelError: it has none; the message has the reason.
    """
    if target.head is None:
        reason = target.head_reason or "it was not prepared; see flatguard.targets.prepare"
        raise ModelError(f"{target.name}: relative sharpness needs the model's head: {reason}")
    return target.head


def prepared(target: Target) -> Target:
    """The target itself, if its head was searched.

    Raises:
        ModelError: it was not prepared.
    """
    if target.num_classes is None and target.head is None:
        head_of(target)
    return target


def measure_of(target: Target) -> SharpnessMeasure:
    """What a threshold on this target's sharpness measures."""
    return LOGIT_SHARPNESS if target.head is None else KAPPA


def scored_pass(target: Target, images: Tensor) -> ScoredPass:
    """One forward pass over images on the model's device, and the score of each.

    Raises:
        ModelError: the target's head does not run exactly once, or it was not prepared.
    """
    if prepared(target).head is not None:
        seen = forward_pass(target, images)
        return ScoredPass(seen.logits, seen.log_kappa)
    with model_errors(target.name, f"on {len(images)} images"):
        logits = target.model(images)
    return ScoredPass(logits, log_sum_p_one_minus_p(logits))


def on_device(target: Target, images: Tensor, batch_size: int) -> Iterator[Tensor]:
    """The images in batches, on the model's device."""
    device = device_of(target.model)
    for batch in images.split(batch_size):
        yield batch.to(device)


def forward_pass(target: Target, images: Tensor) -> ForwardPass:
    """One forward pass over images on the model's device.

    Raises:
        ModelError: the target has no proven head, or its head does not run exactly once.

    Cost: the pass, and about 0.1 ms for 128 rows of ten classes.
    """
    head = head_of(target)
    seen: list[tuple[Tensor, Tensor]] = []

    def listener(given: Tensor | None, output: Tensor) -> None:
        features, result = None if given is None else as_matrix(given), as_matrix(output)
        if features is not None and result is not None:
            seen.append((features, result))

    with head.watched(listener), model_errors(target.name, f"on {len(images)} images"):
        logits = target.model(images)
    if len(seen) != 1 or seen[0][1].shape != logits.shape:
        raise ModelError(
            f"{target.name}: expected its head '{head.name}' to run once a forward pass, on a "
            f"vector an image; it ran {len(seen)} times"
        )
    features, output = seen[0]
    proven = relative_mismatch(logits.detach(), output.detach(), head.scale) <= head.tolerance
    log_scaled_norm = 2.0 * math.log(head.scale) + head.log_weight_norm_squared()
    log_kappa = torch.where(proven, log_trace(logits, features) + log_scaled_norm, torch.nan)
    return ForwardPass(logits, features, log_kappa)


def _log_one_minus_top(logits: Tensor) -> Tensor:
    r"""$\log(1 - \max_j p_j)$, `(n,)` float64: one minus the maximum softmax probability.

    Source: Hendrycks & Gimpel (2017). Cost: two passes over the logits.
    """
    _, log_s = _gaps(logits)
    return log_s - log_s.exp().log1p()


def _log_entropy(logits: Tensor) -> Tensor:
    r"""$\log H(p)$ with $H = -\sum_j p_j \log p_j$, `(n,)` float64; never $0 \cdot \infty$.

    With $d_j = z_j - z_t$ and $L = \log(1 + S)$, every term of
    $(1 + S) H = L + \sum_{j \ne t} e^{d_j} (L - d_j)$ is positive. Below a gap of 700, L is S.
    """
    d, log_s = _gaps(logits)
    level = log_s.exp().log1p()
    log_level = torch.where(log_s < -30.0, log_s, level.clamp_min(1e-300).log())
    terms = d + (level[:, None] - d).clamp_min(1e-300).log()
    others = torch.where(d == float("-inf"), d, terms).logsumexp(dim=1)
    return torch.logaddexp(log_level, others) - level


def _energy(logits: Tensor) -> Tensor:
    r"""$-\log \sum_j e^{z_j}$, `(n,)` float64 (Liu et al. 2020, temperature 1)."""
    return -wide(logits).logsumexp(dim=1)


def _gaps(logits: Tensor) -> tuple[Tensor, Tensor]:
    """d_j = z_j - z_t with -inf at t itself, and log S."""
    z = wide(logits)
    top, index = z.max(dim=1, keepdim=True)
    d = (z - top).scatter(1, index, float("-inf"))
    return d, d.logsumexp(dim=1)


ONE_PASS: dict[str, Callable[[ForwardPass], Tensor]] = {
    LOG_KAPPA: lambda seen: seen.log_kappa,
    "max-softmax": lambda seen: _log_one_minus_top(seen.logits),
    "entropy": lambda seen: _log_entropy(seen.logits),
    "gini": lambda seen: log_sum_p_one_minus_p(seen.logits),
    "margin": lambda seen: margin(seen.logits, seen.predicted),
    "energy": lambda seen: _energy(seen.logits),
    "feature-norm": lambda seen: feature_norm(seen.features).log(),
}
"""Scores by name. Gini impurity 1 - ‖p‖² is Σp(1-p), which is κ without ‖W‖²‖φ‖²."""


def one_pass_scores(seen: ForwardPass) -> dict[str, np.ndarray]:
    """Every score of `ONE_PASS`, `(n,)` float64 each."""
    return {name: score(seen).detach().cpu().numpy() for name, score in ONE_PASS.items()}
