"""Lemmas 11 and 12 and Table 1: what becomes of other scores and other losses."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from flatguard.checks.statistics import interval
from flatguard.geometry.named_losses import NamedLoss, parse_loss
from flatguard.geometry.sharpness import rise_of_log_kappa
from flatguard.studies.claim import Claim, agrees_if, not_measured, share
from flatguard.studies.study import Outcome, Subject
from flatguard.studies.walter.path import Path, walk_all

ALPHAS = (1.0, 10.0, 100.0, 1000.0)
LOSSES = ("focal:2", "brier", "kl:0.1")
COLLAPSED = 10.0
"""A fall of log |tr H| by this much, a factor of 20,000, is a collapse."""


def lemma11_of(subject: Subject) -> Outcome:
    """The lemma as printed, and κ itself, which has the curvature as a factor."""
    whole = walk_all(subject)
    return Outcome((_constant_score(), _kappa_vanishes(whole[whole.right()])))


def _constant_score() -> Claim:
    """S = 1 is below C (1 + ‖W‖)^r (1 + ‖H‖)^s with C = r = 1 and s = 0, whatever W and H are."""
    score = 1.0
    bounds = [(1.0 + alpha) * (1.0 + math.exp(-alpha)) ** 0 for alpha in ALPHAS]
    holds = all(score <= bound for bound in bounds)
    return Claim(
        name="as-printed",
        claim="A score with the growth bound (6) vanishes as the logits are scaled up.",
        paper="the limit is 0",
        ours=score,
        rule="no score that satisfies (6) has another limit",
        verdict="refuted" if holds and score != 0 else "agrees",
        note="Counterexample: the constant score S = 1 satisfies (6) with C = r = 1 and s = 0, "
        "and its limit is 1. (1 + ‖H‖)^s is at least 1 for every s, so (6) bounds nothing from "
        "above by 0; the proof drops the 1. With ‖H‖^s, s > 0, in its place the lemma holds.",
    )


def _kappa_vanishes(path: Path) -> Claim:
    logits = path.logits[0].double()
    fall = rise_of_log_kappa(logits, ALPHAS[-1])
    fell, n = int((fall < -COLLAPSED).sum()), len(fall)
    gaps = logits.topk(2, dim=1).values
    gap = gaps[:, 0] - gaps[:, 1]
    slope = (fall - rise_of_log_kappa(logits, ALPHAS[-2])) / (ALPHAS[-1] - ALPHAS[-2])
    close = float((slope / -gap).median())
    return share(
        fell,
        n,
        name="kappa",
        claim="κ, which has the curvature as a factor, vanishes as the logits are scaled up.",
        paper="the limit is 0",
        rule=f"log κ is lower by {COLLAPSED:g} at α = {ALPHAS[-1]:g} for at least 95%",
        verdict=agrees_if(fell >= 0.95 * n),
        note=f"Samples that are right when clean. From α = 100 on, log κ falls by {close:.3f} "
        "(median) times the gap of the two largest logits for each unit of α, as the proof says; "
        "where the gap is small it first rises.",
    )


def lemma12_of(subject: Subject) -> Outcome:
    """Other losses' curvature: as the label's probability grows, and along the attack."""
    path = walk_all(subject)
    claims: list[Claim] = []
    for name in LOSSES:
        claims += [_collapses(path[path.right()], name), _valley(path, name)]
    return Outcome(tuple(claims))


def _collapses(path: Path, name: str) -> Claim:
    loss = parse_loss(name)
    traces = [_log_trace(loss, path.logits[0] * a, path.labels, path.features[0]) for a in ALPHAS]
    fall = traces[-1] - traces[0]
    fell, n = int((fall < -COLLAPSED).sum()), len(fall)
    covered = loss.kind != "kl"
    medians = ", ".join(f"{float(trace.median()):.3g}" for trace in traces)
    return share(
        fell,
        n,
        name=f"{name}-collapses",
        claim=f"As p_y goes to 1, the Hessian of {_called(name)} goes to 0.",
        paper="the limit is 0" if covered else "assumption (A) fails: the lemma says nothing",
        rule=f"log |tr H| is lower by {COLLAPSED:g} at α = {ALPHAS[-1]:g} for at least 95%",
        verdict=agrees_if(fell >= 0.95 * n),
        note=f"Samples that are right, logits times α; median log |tr H| at α = 1, 10, 100, 1000: "
        f"{medians}."
        + (
            ""
            if covered
            else " H in the logits is diag(p) - ppᵀ whatever the target is, so it collapses too."
        ),
    )


def _valley(path: Path, name: str) -> Claim:
    loss = parse_loss(name)
    fooled = path[path.right() & path.wrong()[-1] & path.inside]
    claim = f"The uncanny valley is there for {_called(name)} too (Section 6.2)."
    rule = "|tr H| is lower on the adversarial example for more than half, by the whole interval"
    n = len(fooled.labels)
    if not n:
        return not_measured(f"{name}-valley", claim, "the same", rule, "nothing was fooled")
    clean, end = (
        _log_trace(loss, fooled.logits[i], fooled.labels, fooled.features[i]) for i in (0, -1)
    )
    lower = int((end < clean).sum())
    low, _ = interval(lower, n)
    return share(
        lower,
        n,
        name=f"{name}-valley",
        claim=claim,
        paper="the same holds",
        rule=rule,
        verdict=agrees_if(low > 0.5),
        note=f"Share of fooled samples; median log |tr H| {float(clean.median()):.2f} clean, "
        f"{float(end.median()):.2f} adversarial. Confidently wrong is p_y near 0, which Lemma 12 "
        "does not cover.",
    )


def _log_trace(loss: NamedLoss, logits: Tensor, labels: Tensor, features: Tensor) -> Tensor:
    return loss.trace(logits.double(), labels, features.double()).log_abs


def _called(name: str) -> str:
    kinds = {"focal": "focal loss", "brier": "the Brier score", "kl": "KL to a smoothed label"}
    return f"{kinds[name.partition(':')[0]]} ({name})"


@dataclass(frozen=True)
class Row:
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


TABLE = (
    Row("cross-entropy", lambda p: -p[0].log(), True, "✓"),
    Row("focal, γ = 2", _focal(2.0), True, "✓ if γ ≥ 1"),
    Row("focal, γ = 1/2", _focal(0.5), False, "✓ if γ ≥ 1"),
    Row("Brier", _brier, True, "✓"),
    Row("KL to a hard label", lambda p: -p[0].log(), True, "✓"),
    Row(
        "KL to a soft target",
        lambda p: (_smooth(p) * (_smooth(p) / p).log()).sum(), False, "× (some q_j > 0)",
    ),
    Row("reverse KL to a soft target", lambda p: (p * (p / _smooth(p)).log()).sum(), True, "✓"),
)  # fmt: skip
NEAR = (1e-2, 1e-4, 1e-6)
"""How near the edge of the simplex of three classes is approached."""


def table1_of(subject: Subject) -> Outcome:
    """Assumption (A), row by row, by second derivatives in float64 near the simplex's edges."""
    return Outcome(tuple(_row(row) for row in TABLE))


def _row(row: Row) -> Claim:
    sizes = [max(_curvature(row.loss, p) for p in _edges(near)) for near in NEAR]
    bounded = sizes[-1] <= 2.0 * sizes[0]
    agrees = bounded == row.satisfies
    return Claim(
        name=row.name,
        claim=f"Assumption (A) for {row.name}: |h_y| p_y² and |h_j| stay bounded.",
        paper=row.printed,
        ours=sizes[-1],
        rule="the largest of them at most doubles from 1e-2 to 1e-6 from the edge exactly where "
        "the table has a ✓",
        verdict="agrees" if agrees else "refuted",
        note=f"Largest at 1e-2, 1e-4, 1e-6 from the edge: "
        f"{', '.join(f'{size:.3g}' for size in sizes)}."
        + ("" if agrees else " h_j = 1/p_j, as Section B.1 says itself, and not 0."),
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
