"""Steps and projections in the ball of a norm around an image, and in the box [0, 1]."""

from __future__ import annotations

import torch
from torch import Tensor

from flatguard.geometry.budget import Norm

SEARCHED: tuple[Norm, ...] = ("Linf", "L2", "L1")
"""The norms that have a steepest direction and a projection here."""

_L1_SHARE = 0.02
"""A step in L1 changes this share of the values: the steepest ones."""


def direction(gradient: Tensor, norm: Norm) -> Tensor:
    """The steepest direction of length 1 in this norm; 0 where the gradient is 0."""
    if norm == "Linf":
        return gradient.sign()
    flat = gradient.flatten(1)
    if norm == "L1":
        kept = max(1, round(_L1_SHARE * flat.shape[1]))
        threshold = flat.abs().topk(kept, dim=1).values[:, -1:]
        flat = flat.sign() * (flat.abs() >= threshold) * (flat != 0)
        return (flat / flat.abs().sum(dim=1, keepdim=True).clamp_min(1.0)).view_as(gradient)
    largest = flat.abs().amax(dim=1, keepdim=True)
    flat = flat / largest.clamp_min(torch.finfo(flat.dtype).tiny)  # its square may underflow
    size = torch.linalg.vector_norm(flat, dim=1, keepdim=True)
    unit: Tensor = flat / size.clamp_min(1e-30)
    return unit.view_as(gradient)


def project(images: Tensor, clean: Tensor, eps: float, norm: Norm) -> Tensor:
    """The nearest point of the ball around the clean image, then of the box [0, 1]."""
    delta = (images - clean).flatten(1)
    if norm == "Linf":
        delta = delta.clamp(-eps, eps)
    elif norm == "L2":
        size = torch.linalg.vector_norm(delta, dim=1, keepdim=True)
        delta = delta * (eps / size.clamp_min(eps))
    else:
        delta = _onto_l1(delta, eps)
    # Towards the box is towards the clean image in every value, so the ball is not left.
    return (clean + delta.view_as(clean)).clamp(0, 1)


def _onto_l1(delta: Tensor, eps: float) -> Tensor:
    """Duchi et al. (2008): soft thresholding at the level that leaves the sum at eps."""
    size = delta.abs()
    ordered = size.sort(dim=1, descending=True).values
    above = (ordered.cumsum(dim=1) - eps) / torch.arange(
        1, delta.shape[1] + 1, device=delta.device, dtype=delta.dtype
    )
    count = (ordered > above).sum(dim=1, keepdim=True).clamp_min(1)
    level = above.gather(1, count - 1).clamp_min(0.0)
    shrunk = delta.sign() * (size - level).clamp_min(0.0)
    return torch.where(size.sum(dim=1, keepdim=True) > eps, shrunk, delta)


def random_step(images: Tensor, eps: float, norm: Norm) -> Tensor:
    """A random step: uniform in the Linf ball, of a random length and direction otherwise."""
    if norm == "Linf":
        return (torch.rand_like(images) * 2.0 - 1.0) * eps
    share = torch.rand(len(images), *[1] * (images.ndim - 1), device=images.device)
    return eps * share * direction(torch.randn_like(images), norm)


def random_point(images: Tensor, eps: float, norm: Norm) -> Tensor:
    """A random point of the ball around each image and of the box: a `random_step` from it."""
    return project(images + random_step(images, eps, norm), images, eps, norm)
