"""Lemmas 11 and 12 and Table 1: other scores and other losses."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from flatguard.geometry.named_losses import NamedLoss, parse_loss
from flatguard.geometry.sharpness import rise_of_log_kappa
from flatguard.studies.claim import Claim
from flatguard.studies.statement import statements
from flatguard.studies.study import Outcome, Subject
from flatguard.studies.walter.path import Path, walk_all

_ALPHAS = (1.0, 10.0, 100.0, 1000.0)
_CLAIMS = statements("walter", "losses")
_LOSSES = {"focal:2": "focal loss", "brier": "the Brier score", "kl:0.1": "KL to a smoothed label"}
_COLLAPSED = 10.0
"""A fall of log |tr H| by this much, a factor of 20,000, is a collapse."""


def lemma11_of(subject: Subject) -> Outcome:
    """The lemma as printed, and κ itself, which has the curvature as a factor."""
    whole = walk_all(subject)
    return Outcome((_constant_score(), _kappa_vanishes(whole[whole.correct()])))


def _constant_score() -> Claim:
    """S = 1 is below C (1 + ‖W‖)^r (1 + ‖H‖)^s with C = r = 1 and s = 0, whatever W and H are."""
    score = 1.0
    bounds = [(1.0 + alpha) * (1.0 + math.exp(-alpha)) ** 0 for alpha in _ALPHAS]
    counterexample = all(score <= bound for bound in bounds) and score != 0
    return _CLAIMS["as-printed"].judge(score, also=not counterexample)


def _kappa_vanishes(path: Path) -> Claim:
    logits = path.logits[0].double()
    change = rise_of_log_kappa(logits, _ALPHAS[-1])
    first, second = logits.topk(2, dim=1).values.T
    slope = (change - rise_of_log_kappa(logits, _ALPHAS[-2])) / (_ALPHAS[-1] - _ALPHAS[-2])
    return _CLAIMS["kappa"].share_of(
        change < -_COLLAPSED,
        collapse=_COLLAPSED,
        alpha=_ALPHAS[-1],
        close=float((slope / (second - first)).median()),
    )


def lemma12_of(subject: Subject) -> Outcome:
    """Other losses' curvature: as the label's probability grows, and along the attack."""
    path = walk_all(subject)
    claims: list[Claim] = []
    for name in _LOSSES:
        claims += [_collapses(path[path.correct()], name), _valley(path, name)]
    return Outcome(tuple(claims))


def _collapses(path: Path, name: str) -> Claim:
    loss = parse_loss(name)
    traces = [_log_trace(loss, path.logits[0] * a, path.labels, path.features[0]) for a in _ALPHAS]
    claim = _CLAIMS.get(f"{name}-collapses", _CLAIMS["{loss}-collapses"])
    return claim.share_of(
        traces[-1] - traces[0] < -_COLLAPSED,
        loss=name,
        called=_LOSSES[name],
        collapse=_COLLAPSED,
        alpha=_ALPHAS[-1],
        medians=", ".join(f"{float(trace.median()):.3g}" for trace in traces),
    )


def _valley(path: Path, name: str) -> Claim:
    loss = parse_loss(name)
    fooled = path[path.correct() & path.wrong()[-1] & path.inside]
    texts, claim = {"loss": name, "called": _LOSSES[name]}, _CLAIMS["{loss}-valley"]
    if not len(fooled.labels):
        return claim.not_measured(**texts)
    clean, end = (
        _log_trace(loss, fooled.logits[i], fooled.labels, fooled.features[i]) for i in (0, -1)
    )
    medians = {"clean": float(clean.median()), "end": float(end.median())}
    return claim.share_of(end < clean, **texts, **medians)


def _log_trace(loss: NamedLoss, logits: Tensor, labels: Tensor, features: Tensor) -> Tensor:
    return loss.trace(logits.double(), labels, features.double()).log_abs


@dataclass(frozen=True)
class _LossRow:
    """A row of Table 1: the loss of `(k,)` probabilities with class 0 as label, and its mark."""

    name: str
    loss: Callable[[Tensor], Tensor]
    satisfies: bool
    printed: str


def _focal(gamma: float) -> Callable[[Tensor], Tensor]:
    return lambda p: -((1.0 - p[0]) ** gamma) * p[0].log()


def _brier(p: Tensor) -> Tensor:
    return (p - _one_hot(p)).square().sum()


def _one_hot(p: Tensor) -> Tensor:
    hard = torch.zeros_like(p)
    hard[0] = 1.0
    return hard


def _smooth(p: Tensor) -> Tensor:
    return 0.9 * _one_hot(p) + 0.1 / len(p)


_TABLE = (
    _LossRow("cross-entropy", lambda p: -p[0].log(), True, "✓"),
    _LossRow("focal, γ = 2", _focal(2.0), True, "✓ if γ ≥ 1"),
    _LossRow("focal, γ = 1/2", _focal(0.5), False, "✓ if γ ≥ 1"),
    _LossRow("Brier", _brier, True, "✓"),
    _LossRow("KL to a hard label", lambda p: -p[0].log(), True, "✓"),
    _LossRow(
        "KL to a soft target",
        lambda p: (_smooth(p) * (_smooth(p) / p).log()).sum(), False, "× (some q_j > 0)",
    ),
    _LossRow(
        "reverse KL to a soft target", lambda p: (p * (p / _smooth(p)).log()).sum(), True, "✓",
    ),
)  # fmt: skip
_NEAR = (1e-2, 1e-4, 1e-6)
"""How near the edge of the simplex of three classes is approached."""


def table1_of(subject: Subject) -> Outcome:
    """Assumption (A), row by row, by second derivatives in float64 near the simplex's edges."""
    return Outcome(tuple(_row(row) for row in _TABLE))


def _row(row: _LossRow) -> Claim:
    sizes = [max(_curvature(row.loss, p) for p in _edges(near)) for near in _NEAR]
    agrees = (sizes[-1] <= 2.0 * sizes[0]) == row.satisfies
    return _CLAIMS["{loss}"].judge(
        sizes[-1],
        also=agrees,
        loss=row.name,
        printed=row.printed,
        sizes=", ".join(f"{size:.3g}" for size in sizes),
        why="" if agrees else " h_j = 1/p_j, as Section B.1 says itself, and not 0.",
    )


def _curvature(loss: Callable[[Tensor], Tensor], p: Tensor) -> float:
    """max of |h_y| p_y² and the |h_j|, at one point of the open simplex."""
    second = torch.autograd.functional.hessian(loss, p).diagonal()
    return float(torch.cat([(second[0] * p[0] ** 2)[None], second[1:]]).abs().max())


def _edges(near: float) -> list[Tensor]:
    """Points of the simplex of three classes that are `near` an edge or a corner."""
    rows = [
        (1 - 2 * near, near, near), (near, 1 - 2 * near, near), (near, near, 1 - 2 * near),
        (near, (1 - near) / 2, (1 - near) / 2), ((1 - near) / 2, near, (1 - near) / 2),
        (1 - near - near**2, near, near**2),
    ]  # fmt: skip
    return [torch.tensor(row, dtype=torch.float64) for row in rows]
