r"""How fast the features move with the input: the largest singular value of ∂φ/∂x, locally.

$\|\varphi(\xi) - \varphi(x)\| \le \sup \|\partial\varphi\|_2\, \|\xi - x\|$ over the segment
between them. The supremum is estimated by power iteration at a few points of the segment, so that
the result is a lower bound of it, and of the Lipschitz constant over any ball that holds them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from flatguard.environment.randomness import seeded
from flatguard.targets.head import FinalMap, inputs_of

POINTS, POWER_STEPS = 5, 12


def features_of(model: nn.Module, head: FinalMap, images: Tensor) -> Tensor:
    """The head's inputs, `(n, d)`, with their graph where gradients are on."""
    with inputs_of(head, attached=True) as seen:
        model(images)
    return seen[-1]


def local_lipschitz(
    model: nn.Module,
    head: FinalMap,
    images: Tensor,
    ends: Tensor,
    seed: int,
    points: int = POINTS,
    steps: int = POWER_STEPS,
) -> Tensor:
    r"""The largest $\|\partial\varphi/\partial x\|_2$ found on each segment from image to end.

    Args:
        model: in eval mode; its head takes one vector a sample, which depends on no other sample.
        head: its proven head.
        images: `(n, ...)`.
        ends: the same shape, the other ends of the segments.
        seed: of the first vectors; all generators are put back.
        points: on each segment, its ends among them.
        steps: of power iteration at each point.

    Returns:
        `(n,)` in the model's floating-point type; a lower bound.

    Cost: 1 + 3 · `steps` passes for each point.
    """
    found = torch.zeros(len(images), device=images.device)
    with seeded(seed, images.device):
        for share in torch.linspace(0.0, 1.0, points).tolist():
            at = torch.lerp(images, ends, share)
            found = torch.maximum(found, _spectral_norm(model, head, at, steps))
    return found


def _spectral_norm(model: nn.Module, head: FinalMap, images: Tensor, steps: int) -> Tensor:
    x = images.detach().clone().requires_grad_(True)
    with torch.enable_grad():
        features = features_of(model, head, x)
        # J' u is linear in u, so that its derivative in u along v is J v.
        u = torch.zeros_like(features, requires_grad=True)
        (pulled,) = torch.autograd.grad(features, x, u, create_graph=True)
    v = _unit(torch.randn_like(x))
    size = torch.zeros(len(x), device=x.device)
    for _ in range(steps):
        (pushed,) = torch.autograd.grad(pulled, u, v, retain_graph=True)
        size = torch.maximum(size, pushed.norm(dim=1))
        (back,) = torch.autograd.grad(features, x, pushed, retain_graph=True)
        v = _unit(back)
    return size.detach()


def _unit(x: Tensor) -> Tensor:
    norm: Tensor = x.flatten(1).norm(dim=1).clamp_min(torch.finfo(x.dtype).tiny)
    return x / norm.view(-1, *[1] * (x.ndim - 1))
