r"""Relative sharpness of layers without a closed form, by stochastic trace estimation.

$\kappa_l(x) = \|W_l\|_F^2 \cdot \mathrm{tr}\,H_{W_l}(x)$ for one sample and one layer's weights,
with the trace estimated from Hessian-vector products by curvlinops: Hutchinson's estimator, as in
Walter et al. (2026), Figure 14, or XTrace (Epperly et al. 2024), which needs fewer products.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from flatguard.environment.randomness import seeded
from flatguard.environment.requirements import needed
from flatguard.environment.torch_state import own_state
from flatguard.errors import UsageError

Method = Literal["hutchinson", "xtrace"]


@dataclass(frozen=True)
class Estimate:
    """Estimated relative sharpness, `(n,)` each, in the model's floating-point type.

    Attributes:
        kappa: the mean over the repeats; may be negative away from a minimum, and by chance.
        standard_error: of that mean, from the scatter of the repeats.
    """

    kappa: Tensor
    standard_error: Tensor


def layer_sharpness(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    layer: str,
    *,
    method: Method = "hutchinson",
    matvecs: int = 16,
    repeats: int = 8,
    seed: int = 0,
) -> Estimate:
    """Relative sharpness of one layer's weights for each sample.

    Args:
        model: in eval mode; `(n, ...)` images to `(n, k)` logits.
        images: a few samples, `(n, ...)`.
        labels: `(n,)` int64; the Hessian of cross-entropy with hard labels does not depend on
            them at the last layer, but it does before.
        layer: its name in `model.named_modules()`; it must have a `weight` parameter.
        method: the estimator.
        matvecs: Hessian-vector products per repeat; an even number for XTrace.
        repeats: independent repeats, at least 2, whose scatter gives the standard error.
        seed: of the probe vectors; the global generators are restored.

    Raises:
        EnvironmentProblem: curvlinops is not installed.
        UsageError: no such layer, fewer than two repeats, or more XTrace products than the
            Hessian's rank allows (at the last layer it is below the number of classes).

    Cost: n · repeats · matvecs Hessian-vector products, each about four forward passes of one
    sample.
    """
    if repeats < 2:
        raise UsageError(f"expected at least 2 repeats for a standard error, got {repeats}")
    weight = _weight(model, layer)
    operator_of, estimate = _curvlinops(method)
    kappas = []
    with own_state(), seeded(seed, images.device), _differentiable(weight):
        # Clones are ordinary tensors even if the caller's were made in inference mode.
        for image, label in zip(images.clone().split(1), labels.clone().split(1), strict=True):
            operator = operator_of(
                model, nn.CrossEntropyLoss(), [weight], [(image, label)], check_deterministic=False
            )
            try:
                traces = [estimate(operator, matvecs) for _ in range(repeats)]
            except RuntimeError as error:
                if "singular" not in str(error):
                    raise
                raise UsageError(
                    f"{method} with {matvecs} products needs a Hessian of higher rank; ask for "
                    "fewer, or use hutchinson"
                ) from error
            kappas.append(torch.stack([torch.as_tensor(trace) for trace in traces]))
    scaled = torch.stack(kappas).detach() * weight.detach().square().sum()
    return Estimate(scaled.mean(dim=1), scaled.std(dim=1) / repeats**0.5)


@contextmanager
def _differentiable(weight: nn.Parameter) -> Iterator[None]:
    """Make a weight differentiable, even if it is frozen."""
    before = weight.requires_grad
    weight.requires_grad_(True)
    try:
        yield
    finally:
        weight.requires_grad_(before)


def _weight(model: nn.Module, layer: str) -> nn.Parameter:
    modules = dict(model.named_modules())
    weight = getattr(modules.get(layer), "weight", None)
    if not isinstance(weight, nn.Parameter):
        known = [name for name, m in modules.items() if isinstance(m, (nn.Linear, nn.Conv2d))]
        raise UsageError(f"no layer {layer!r} with weights; there are {', '.join(known[-6:])}")
    return weight


def _curvlinops(method: Method) -> tuple[Any, Callable[[Any, int], Any]]:
    with needed("curvlinops-for-pytorch", "layers", "the sharpness of deeper layers"):
        import curvlinops
    estimators = {"hutchinson": curvlinops.hutchinson_trace, "xtrace": curvlinops.xtrace}
    return curvlinops.HessianLinearOperator, estimators[method]
