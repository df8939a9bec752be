"""Figures 3 and 16: the ridge of κ at the decision boundary, and the uncanny valley beyond it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from flatguard.checks.statistics import interval, median_interval
from flatguard.studies.claim import Claim, agrees_if, not_measured, share
from flatguard.studies.study import Outcome, Protocol, Subject
from flatguard.studies.walter.path import Path, walk_all

PGD10 = Protocol(
    "torchattacks:PGD", "Linf", "8/255", {"steps": 10, "alpha": 2 / 255, "random_start": False}
)


def valley_of(subject: Subject) -> Outcome:
    """Peak and valley of log κ over the samples that are right when clean and fooled in the end."""
    whole = walk_all(subject)
    path = whole[whole.right() & whole.wrong()[-1] & whole.inside]
    log_kappa = path.log_kappa(subject.head())
    if not len(path.labels):
        rule = "it holds for most samples that are fooled"
        why = "the attack fooled no sample that was right"
        return Outcome((not_measured("valley", VALLEY, "no number", rule, why),))
    claims = (
        _peak(log_kappa),
        _flatter(log_kappa),
        _medians(log_kappa),
        _coincides(path, log_kappa),
        _loss_rises(path),
    )
    return Outcome(claims, _figures(path, log_kappa))


VALLEY = "Adversarial examples lie in a flat, confident, wrong valley."


def _peak(log_kappa: Tensor) -> Claim:
    inner = log_kappa[1:-1].amax(dim=0)
    holds = (inner > log_kappa[0]) & (inner > log_kappa[-1])
    rise = float((log_kappa.amax(dim=0) - log_kappa[0]).median())
    return _majority(
        "peak",
        "Along the attack κ first rises to a peak, then falls.",
        holds,
        f"Share of fooled samples with the peak strictly inside the path; median rise of log κ to "
        f"the peak {rise:.2f}.",
    )


def _flatter(log_kappa: Tensor) -> Claim:
    return _majority(
        "flatter",
        "Adversarial examples are flatter than their clean images.",
        log_kappa[-1] < log_kappa[0],
        "Share of fooled samples.",
    )


def _medians(log_kappa: Tensor) -> Claim:
    clean, end = float(log_kappa[0].median()), float(log_kappa[-1].median())
    return Claim(
        name="valley-depth",
        claim="κ falls to near zero on adversarial examples.",
        paper="near zero, no number",
        ours=end,
        interval=median_interval(log_kappa[-1].tolist()),
        samples=log_kappa.shape[1],
        rule="the median of log κ falls by at least 10, a factor of 20,000",
        verdict=agrees_if(clean - end >= 10),
        note=f"Median log κ of the adversarial examples; {clean:.2f} on their clean images.",
    )


def _coincides(path: Path, log_kappa: Tensor) -> Claim:
    flip = path.wrong().int().argmax(dim=0)
    off = (log_kappa.argmax(dim=0) - flip).abs()
    at, before = float((off == 0).double().mean()), log_kappa.argmax(dim=0) == flip - 1
    return _majority(
        "peak-at-flip",
        "The peak of κ marks the decision boundary, where the prediction flips.",
        off <= 1,
        f"Share of fooled samples whose peak is at most one step from their first wrong "
        f"prediction; {at:.0%} at that very step, {float(before.double().mean()):.0%} one before.",
    )


def _loss_rises(path: Path) -> Claim:
    loss = path.loss()
    after = [int(row.int().argmax()) for row in path.wrong().T]
    kept = torch.stack([loss[-1, i] > loss[step, i] for i, step in enumerate(after)])
    return _majority(
        "loss-rises",
        "While κ falls, the loss keeps rising.",
        kept,
        "Share of fooled samples whose loss in the end is above that at their first flip.",
    )


def _majority(name: str, claim: str, holds: Tensor, note: str) -> Claim:
    count, n = int(holds.sum()), len(holds)
    low, _ = interval(count, n)
    return share(
        count,
        n,
        name=name,
        claim=claim,
        paper="no number",
        rule="it holds for more than half, by the whole interval",
        verdict=agrees_if(low > 0.5),
        note=note,
    )


def _figures(path: Path, log_kappa: Tensor) -> dict[str, Any]:
    levels = torch.tensor([0.05, 0.25, 0.5, 0.75, 0.95], dtype=torch.float64)

    def table(values: Tensor) -> list[list[float]]:
        found: list[list[float]] = values.quantile(levels, dim=1).tolist()
        return found

    return {
        "quantiles": levels.tolist(),
        "log_kappa": table(log_kappa),
        "loss": table(path.loss()),
        "wrong": path.wrong().double().mean(dim=1).tolist(),
    }
