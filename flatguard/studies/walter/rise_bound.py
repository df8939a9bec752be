"""Equation 5 and Proposition 8: bounds on the rise of the loss, against the rise itself.

Explanatory, not a certificate: L is estimated, and the printed remainder can be violated. A third
bound holds for any head, with the movement of the features measured.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from flatguard.studies.claim import Claim
from flatguard.studies.statement import statements
from flatguard.studies.study import Outcome, Subject
from flatguard.studies.walter.local import METHOD, SHRUNK, Local, look_locally

_CLAIMS = statements("walter", "rise_bound")


def equation5_of(subject: Subject) -> Outcome:
    """The rise of the loss along the path against all three bounds."""
    local = look_locally(subject)
    rise, moved = local.path.rise()[1:], local.moved[1:]
    printed, holds = local.printed(), local.any_head()
    second = local.slope * moved + printed.quadratic * moved**2
    third = second + printed.cubic * moved**3
    at_minimum = printed.rise(local.path.l2[1:])
    shrunk = second + local.printed(SHRUNK).cubic * moved**3
    ours = holds.rise(local.path.moved()[1:])
    claims = (
        _bounded("second-order", rise, second),
        _bounded("with-remainder", rise, third),
        _bounded("proposition-8", rise, at_minimum),
        _bounded("reparametrised", rise, shrunk),
        _bounded("any-head", rise, ours),
    )
    return Outcome(claims, _figures(local, third, ours), METHOD)


def _bounded(name: str, rise: Tensor, bound: Tensor) -> Claim:
    """Along the whole path; `reparametrised` is the same classifier, φ shrunk and W enlarged."""
    return _CLAIMS[name].share_of(
        (rise <= bound * (1 + 1e-6) + 1e-9).all(dim=0),
        ratio=float((bound[-1] / rise[-1].clamp_min(1e-300)).median()),
        shrunk=SHRUNK,
        grown=1 / SHRUNK,
    )


def _figures(local: Local, printed: Tensor, ours: Tensor) -> dict[str, Any]:
    return {
        "moved": local.moved[1:].median(dim=1).values.tolist(),
        "rise": local.path.rise()[1:].median(dim=1).values.tolist(),
        "printed_bound": printed.median(dim=1).values.tolist(),
        "bound_for_any_head": ours.median(dim=1).values.tolist(),
    }
