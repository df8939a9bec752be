"""Proposition 9: the radius within which the loss is bounded, and an attack inside it.

Explanatory, not a certificate, as in `rise_bound`.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from flatguard.checks.statistics import rank_correlation
from flatguard.data.dataset import Batch
from flatguard.geometry.basin import LOSS_TOLERANCE
from flatguard.geometry.bounds import PrintedBound, largest_step
from flatguard.geometry.decision import cross_entropy
from flatguard.studies.claim import Claim
from flatguard.studies.statement import statements
from flatguard.studies.study import Outcome, Subject
from flatguard.studies.walter.local import METHOD, SHRUNK, Local, look_locally

_CLAIMS = statements("walter", "radius")
_SEARCH_STEPS = 10


def proposition9_of(subject: Subject) -> Outcome:
    """The printed radius for a given loss tolerance, and the result of an attack inside it."""
    local, epsilon = look_locally(subject), LOSS_TOLERANCE
    printed = local.printed()
    radius = printed.delta(epsilon)
    fair = _with_slope(local, SHRUNK, epsilon)
    claims = (
        _limit(printed, epsilon),
        _cardano(printed, epsilon),
        _attacked(subject, local, radius, epsilon),
        _attacked_shrunk(subject, local, fair, epsilon),
        _grows(local, radius),
        _feature_radius(local, epsilon),
    )
    figures = {
        "epsilon": epsilon,
        "log_kappa": local.log_kappa.tolist(),
        "printed_delta": radius.tolist(),
        "printed_delta_of_the_shrunk_model": fair.tolist(),
        "lipschitz": local.lipschitz.tolist(),
        "radius": local.radius.tolist(),
    }
    return Outcome(claims, figures, METHOD)


def _with_slope(local: Local, shrunk: float, epsilon: float) -> Tensor:
    """δ of Equation 5 with its linear term. It is the smaller one: a fairer test."""
    bound = local.printed(shrunk)
    step = largest_step(local.slope, bound.quadratic, bound.cubic, epsilon)
    return local.radius / local.lipschitz * step


def _limit(printed: PrintedBound, epsilon: float) -> Claim:
    flat = replace(printed, kappa=torch.zeros_like(printed.kappa))
    off = float((flat.delta(epsilon) / flat.flat_limit(epsilon) - 1).abs().max())
    return _CLAIMS["limit"].judge(off, samples=len(printed.kappa))


def _cardano(printed: PrintedBound, epsilon: float) -> Claim:
    """The appendix's closed form, as printed: α = a/b, and p³/9 under the root."""
    a, b = printed.cubic.to(torch.complex128), printed.quadratic.to(torch.complex128)
    alpha, beta = a / b, epsilon / b
    p, q = -(alpha**2) / 3, 2 * alpha**3 / 27 - beta
    root = (q**2 / 4 + p**3 / 9).sqrt()
    t = (-q / 2 + root).pow(1 / 3) + (-q / 2 - root).pow(1 / 3)
    step = (t - alpha / 3).real
    value = (printed.cubic * step**3 + printed.quadratic * step**2) / epsilon
    return _CLAIMS["closed-form"].judge(float((value - 1).abs().median()), samples=len(step))


def _attacked(subject: Subject, local: Local, radius: Tensor, epsilon: float) -> Claim:
    levels = torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)
    return _CLAIMS["attacked"].share_of(
        _worst_rise(subject, local.batch, radius) <= epsilon,
        steps=_SEARCH_STEPS,
        epsilon=epsilon,
        quartiles=", ".join(f"{float(v):.2g}" for v in radius.quantile(levels)),
    )


def _attacked_shrunk(subject: Subject, local: Local, radius: Tensor, epsilon: float) -> Claim:
    return _CLAIMS["attacked-reparametrised"].share_of(
        _worst_rise(subject, local.batch, radius) <= epsilon,
        shrunk=SHRUNK,
        grown=1 / SHRUNK,
        epsilon=epsilon,
        radius=float(radius.median()),
    )


def _worst_rise(subject: Subject, batch: Batch, radius: Tensor) -> Tensor:
    """The largest rise that normalised gradient ascent finds within each sample's ℓ2 ball."""
    images, labels, model = batch.images, batch.labels, subject.model
    reach = radius.to(images).view(-1, *[1] * (images.ndim - 1))
    with torch.no_grad():
        clean = cross_entropy(model(images), labels)
    x, worst = images.clone(), torch.zeros_like(clean)
    for step in range(_SEARCH_STEPS):
        x.requires_grad_(True)
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(cross_entropy(model(x), labels).sum(), x)
        length = reach if step == 0 else reach / 4
        moved = x.detach() + length * torch.nn.functional.normalize(
            gradient.flatten(1), dim=1
        ).view_as(x)
        offset = moved - images
        size = offset.flatten(1).norm(dim=1).view_as(reach).clamp_min(1e-30)
        x = (images + offset * (reach / size).clamp_max(1.0)).clamp(0, 1).detach()
        with torch.no_grad():
            worst = torch.maximum(worst, cross_entropy(model(x), labels) - clean)
    return worst.double().cpu()


def _grows(local: Local, radius: Tensor) -> Claim:
    found = rank_correlation(local.log_kappa.tolist(), radius.tolist())
    if found is None:
        return _CLAIMS["grows"].not_measured()
    step = radius * local.lipschitz / local.radius
    used = float((local.printed().quadratic * step**2 / LOSS_TOLERANCE).median())
    return _CLAIMS["grows"].judge(found.rho, interval=found.interval, samples=found.n, used=used)


def _feature_radius(local: Local, epsilon: float) -> Claim:
    """The distance allowed by the bound for any head, against where the loss exceeds ε."""
    allowed = local.any_head().distance(epsilon)
    rise, moved = local.path.rise(), local.path.moved()
    broken = ((moved <= allowed) & (rise > epsilon * (1 + 1e-6) + 1e-9)).any(dim=0)
    outside = torch.where(rise > epsilon, moved, math.inf).amin(dim=0)
    left = outside.isfinite()
    return _CLAIMS["feature-radius"].share_of(
        ~broken, ratio=float((allowed / outside)[left].median()), left=int(left.sum())
    )
