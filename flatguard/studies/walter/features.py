"""Lemma 7: how far an attack moves the features, against the bound from the Lipschitz constant."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from flatguard.studies.claim import Claim
from flatguard.studies.statement import statements
from flatguard.studies.study import Outcome, Subject
from flatguard.studies.walter.local import METHOD, Local, look_locally

_CLAIMS = statements("walter", "features")


def lemma7_of(subject: Subject) -> Outcome:
    """Δ against L δ / r, and the orthogonal matrix of the lemma."""
    local = look_locally(subject)
    bound = local.lipschitz * local.path.l2 / local.radius
    inside = local.moved[1:] <= bound[1:] * (1 + 1e-4)
    moved = _CLAIMS["moved"].share_of(
        inside.all(dim=0),
        moved=float(local.moved[-1].median()),
        ratio=float((bound[-1] / local.moved[-1]).median()),
    )
    return Outcome((moved, _orthogonal(local)), _figures(local, bound), METHOD)


def _orthogonal(local: Local) -> Claim:
    """φ(x) + Δ A φ(x) with A the reflection that takes φ(x) to the direction of movement."""
    phi, after = local.path.features[0].double(), local.path.features[-1].double()
    delta, unit = local.moved[-1][:, None], phi / local.radius[:, None]
    way = torch.nn.functional.normalize(after - phi, dim=1)
    axis = unit - way
    power = axis.square().sum(dim=1, keepdim=True).clamp_min(1e-300)
    reflected = phi - 2.0 * axis * (axis * phi).sum(dim=1, keepdim=True) / power
    off = (phi + delta * reflected - after).norm(dim=1) / after.norm(dim=1)
    return _CLAIMS["orthogonal"].judge(float(off.max()), samples=len(off))


def _figures(local: Local, bound: Tensor) -> dict[str, Any]:
    return {
        "l2": local.path.l2.median(dim=1).values.tolist(),
        "moved": local.moved.median(dim=1).values.tolist(),
        "bound": bound.median(dim=1).values.tolist(),
        "lipschitz": local.lipschitz.tolist(),
    }
