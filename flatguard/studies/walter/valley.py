"""Figures 3 and 16: the ridge of κ at the decision boundary, and the uncanny valley beyond it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from flatguard.checks.statistics import median_interval
from flatguard.studies.claim import Claim
from flatguard.studies.statement import statements
from flatguard.studies.study import Outcome, Subject
from flatguard.studies.walter.path import Path, walk_all

_CLAIMS = statements("walter", "valley")


def valley_of(subject: Subject) -> Outcome:
    """Peak and valley of log κ over the samples that the attack fools."""
    whole = walk_all(subject)
    path = whole[whole.correct() & whole.wrong()[-1] & whole.inside]
    log_kappa = path.log_kappa(subject.head())
    if not len(path.labels):
        return Outcome((_CLAIMS["valley"].not_measured(),))
    claims = (
        _peak(log_kappa),
        _CLAIMS["flatter"].share_of(log_kappa[-1] < log_kappa[0]),
        _depth(log_kappa),
        _coincides(path, log_kappa),
        _loss_rises(path),
    )
    return Outcome(claims, _figures(path, log_kappa))


def _peak(log_kappa: Tensor) -> Claim:
    inner = log_kappa[1:-1].amax(dim=0)
    rise = float((log_kappa.amax(dim=0) - log_kappa[0]).median())
    return _CLAIMS["peak"].share_of((inner > log_kappa[0]) & (inner > log_kappa[-1]), rise=rise)


def _depth(log_kappa: Tensor) -> Claim:
    clean, end = float(log_kappa[0].median()), float(log_kappa[-1].median())
    return _CLAIMS["valley-depth"].judge(
        end,
        interval=median_interval(log_kappa[-1].tolist()),
        samples=log_kappa.shape[1],
        also=clean - end >= 10,
        clean=clean,
    )


def _coincides(path: Path, log_kappa: Tensor) -> Claim:
    off = log_kappa.argmax(dim=0) - path.wrong().int().argmax(dim=0)
    at, before = (float((off == step).double().mean()) for step in (0, -1))
    return _CLAIMS["peak-at-flip"].share_of(off.abs() <= 1, at=at, before=before)


def _loss_rises(path: Path) -> Claim:
    loss = path.loss()
    at_flip = loss.gather(0, path.wrong().int().argmax(dim=0)[None])[0]
    return _CLAIMS["loss-rises"].share_of(loss[-1] > at_flip)


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
