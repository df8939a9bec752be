"""Lemma 7: how far an attack moves the features, against what the Lipschitz constant allows."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from flatguard.studies.claim import Claim, agrees_if, share
from flatguard.studies.study import Outcome, Subject
from flatguard.studies.walter.local import METHOD, Local, look_locally


def lemma7_of(subject: Subject) -> Outcome:
    """Δ against L δ / r, and the orthogonal matrix of the lemma."""
    local = look_locally(subject)
    bound = local.lipschitz * local.path.l2 / local.radius
    inside = local.moved[1:] <= bound[1:] * (1 + 1e-4)
    held, n = int(inside.all(dim=0).sum()), len(local.lipschitz)
    ratio = (bound[-1] / local.moved[-1]).median()
    claims = (
        share(
            held,
            n,
            name="moved",
            claim="The features move by at most Δ = L δ / r.",
            paper="always, for the Lipschitz constant L",
            rule="it holds along the whole path for at least 95% of the samples",
            verdict=agrees_if(held >= 0.95 * n),
            note=f"Median Δ at the end {float(local.moved[-1].median()):.2g}; the bound "
            f"is {float(ratio):.2g} times that.",
        ),
        _orthogonal(local),
    )
    return Outcome(claims, _figures(local, bound), METHOD)


def _orthogonal(local: Local) -> Claim:
    """φ(x) + Δ A φ(x) with A the reflection that takes φ(x) to the direction of movement."""
    phi, after = local.path.features[0].double(), local.path.features[-1].double()
    delta, unit = local.moved[-1][:, None], phi / local.radius[:, None]
    way = torch.nn.functional.normalize(after - phi, dim=1)
    axis = unit - way
    power = axis.square().sum(dim=1, keepdim=True).clamp_min(1e-300)
    reflected = phi - 2.0 * axis * (axis * phi).sum(dim=1, keepdim=True) / power
    off = (phi + delta * reflected - after).norm(dim=1) / after.norm(dim=1)
    worst = float(off.max())
    return Claim(
        name="orthogonal",
        claim="There is an orthogonal A with φ(ξ) = φ(x) + Δ A φ(x).",
        paper="always",
        ours=worst,
        samples=len(off),
        rule="a reflection does it for every sample, to 1e-6 of ‖φ(ξ)‖",
        verdict=agrees_if(worst <= 1e-6),
        note="Largest relative error. It is a statement about lengths: any vector of length "
        "Δ ‖φ(x)‖ is such an A φ(x), and A differs from sample to sample.",
    )


def _figures(local: Local, bound: Tensor) -> dict[str, Any]:
    return {
        "l2": local.path.l2.median(dim=1).values.tolist(),
        "moved": local.moved.median(dim=1).values.tolist(),
        "bound": bound.median(dim=1).values.tolist(),
        "lipschitz": local.lipschitz.tolist(),
    }
