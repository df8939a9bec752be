"""Equation 5 and Proposition 8: bounds on the rise of the loss, against the rise itself.

Explanatory, not a certificate: L is estimated, and the printed remainder can be violated. Beside
them stands a bound that holds for any head, with the movement of the features measured.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from flatguard.studies.claim import Claim, agrees_if, share, unbroken
from flatguard.studies.study import Outcome, Subject
from flatguard.studies.walter.local import METHOD, SHRUNK, Local, look_locally


def equation5_of(subject: Subject) -> Outcome:
    """The loss's rise along the path against Equation 5, Proposition 8 and the bound that holds."""
    local = look_locally(subject)
    rise, moved = local.path.rise()[1:], local.moved[1:]
    printed, holds = local.printed(), local.any_head()
    second = local.slope * moved + printed.quadratic * moved**2
    third = second + printed.cubic * moved**3
    at_minimum = printed.rise(local.path.l2[1:])
    shrunk = second + local.printed(SHRUNK).cubic * moved**3
    ours = holds.rise(local.path.moved()[1:])
    claims = (
        _bounded("second-order", "The gradient and κ alone bound the rise (no remainder).",
                 "up to the remainder", rise, second),
        _bounded("with-remainder", "Equation 5 with the printed remainder bounds the rise.",
                 "always", rise, third),
        _bounded("proposition-8", "Proposition 8 bounds the rise, as at a minimum.",
                 "always, at a minimum", rise, at_minimum),
        _reparametrised(rise, shrunk),
        _bounded("any-head", "The bound for any head, with d measured, is never violated.",
                 "not in the paper", rise, ours),
    )  # fmt: skip
    return Outcome(claims, _figures(local, third, ours), METHOD)


def _bounded(name: str, claim: str, paper: str, rise: Tensor, bound: Tensor) -> Claim:
    held = rise <= bound * (1 + 1e-6) + 1e-9
    count, n = int(held.all(dim=0).sum()), rise.shape[1]
    ratio = float((bound[-1] / rise[-1].clamp_min(1e-300)).median())
    return share(
        count,
        n,
        name=name,
        claim=claim,
        paper=paper,
        rule="it holds along the whole path of every sample",
        verdict=agrees_if(count == n),
        note=f"At the end the median bound is {ratio:.2g} times the rise.",
    )


def _reparametrised(rise: Tensor, bound: Tensor) -> Claim:
    """The same classifier with φ shrunk and W enlarged: nothing changes but the printed bound."""
    broken = (rise > bound * (1 + 1e-6) + 1e-9).any(dim=0)
    count, n = int(broken.sum()), len(broken)
    return unbroken(
        count,
        n,
        name="reparametrised",
        claim="Equation 5 with the printed remainder bounds the rise for every model.",
        paper="always",
        rule="no reparametrisation of one model breaks it",
        verdict="refuted" if count else "agrees",
        note=f"Counterexample: φ times {SHRUNK:g} and W times {1 / SHRUNK:g} is the same "
        f"classifier with the same κ, and {count} of {n} paths break the bound. The remainder "
        "k m L³ / 24 has lost ‖w‖³, so it shrinks with φ while the loss does not. A larger L, or "
        "images rescaled to ‖x‖ ≤ 1, only asks for a smaller factor.",
    )


def _figures(local: Local, printed: Tensor, ours: Tensor) -> dict[str, Any]:
    return {
        "moved": local.moved[1:].median(dim=1).values.tolist(),
        "rise": local.path.rise()[1:].median(dim=1).values.tolist(),
        "printed_bound": printed.median(dim=1).values.tolist(),
        "bound_for_any_head": ours.median(dim=1).values.tolist(),
    }
