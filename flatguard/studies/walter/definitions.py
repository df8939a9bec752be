"""Definitions 4 to 6 and Lemma 10: rises of the loss against flips of the prediction."""

from __future__ import annotations

import math

import numpy as np
import torch

from flatguard.geometry.basin import (
    Visited,
    epsilon_star,
    least_rise_of_flip,
    rise_that_flips,
    robust_within,
)
from flatguard.geometry.decision import cross_entropy
from flatguard.studies.claim import Claim
from flatguard.studies.statement import statements
from flatguard.studies.study import Outcome, Subject
from flatguard.studies.walter.path import Path, walk_all

_CLAIMS = statements("walter", "definitions")
_CORRECT_THEN_WRONG = ((0.34, 0.33, 0.33), (0.4, 0.6, 0.0))
"""Probabilities at x and at ξ, of three classes; the first is the label."""


def lemma10_of(subject: Subject) -> Outcome:
    """Every point that the attack visited on correctly classified samples."""
    whole = walk_all(subject)
    path = whole[whole.correct()]
    visited = path.visited(norm="Linf")
    budget = subject.context.attack.budget
    delta = math.inf if budget.eps is None else budget.eps
    claims = (
        _flips_rise(visited),
        _wrong_above_log_k(path),
        _large_rises_flip(path, visited),
        _least_rise(path),
        _epsilon_star(visited, delta),
    )
    return Outcome(claims)


def _flips_rise(visited: Visited) -> Claim:
    p = torch.tensor(_CORRECT_THEN_WRONG, dtype=torch.float64)
    before, after = cross_entropy(p.log(), torch.tensor([0, 0])).tolist()
    correct, wrong = _CORRECT_THEN_WRONG
    return _CLAIMS["flips-rise"].share_of(
        visited.rise[visited.wrong] > 0,
        also=after >= before,
        correct=correct,
        wrong=wrong,
        before=before,
        after=after,
    )


def _wrong_above_log_k(path: Path) -> Claim:
    log_k = rise_that_flips(path.logits.shape[2])
    loss = path.loss()[path.wrong()]
    least = float(loss.min()) if len(loss) else math.nan
    return _CLAIMS["premise"].share_of(loss >= log_k, log_k=log_k, least=least)


def _large_rises_flip(path: Path, visited: Visited) -> Claim:
    large = visited.rise > rise_that_flips(path.logits.shape[2])
    return _CLAIMS["large-rises-flip"].share_of(visited.wrong[large])


def _least_rise(path: Path) -> Claim:
    least = torch.from_numpy(least_rise_of_flip(path.loss()[0].numpy()))
    slack = (path.rise() - least)[path.wrong()]
    return _CLAIMS["least-rise"].share_of(
        slack >= -1e-6, sure=int((least > 0).sum()), images=len(least)
    )


def _epsilon_star(visited: Visited, delta: float) -> Claim:
    star = epsilon_star(visited, delta)
    if star is None:
        return _CLAIMS["epsilon-star"].not_measured()
    robust = robust_within(visited, delta, math.nextafter(star, -math.inf))
    flips = _flips(visited, delta)
    missed = int((robust & flips).sum())
    not_positive = " It is not positive, so Definition 5 has no tolerance that does this."
    return _CLAIMS["epsilon-star"].judge(
        star,
        samples=len(flips),
        also=missed == 0,
        missed=missed,
        flips=int(flips.sum()),
        stricter=int((~robust & ~flips).sum()),
        others=int((~flips).sum()),
        sign=not_positive if star <= 0 else "",
    )


def _flips(visited: Visited, delta: float) -> np.ndarray:
    """Which samples were seen wrong within δ, `(n,)`."""
    first = np.unique(visited.sample, return_index=True)[1]
    flips: np.ndarray = np.logical_or.reduceat(visited.wrong & visited.within(delta), first)
    return flips
