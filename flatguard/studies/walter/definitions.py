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
from flatguard.studies.claim import Claim, agrees_if, not_measured, share, unbroken
from flatguard.studies.study import Outcome, Subject
from flatguard.studies.walter.path import Path, walk_all

RIGHT_THEN_WRONG = ((0.34, 0.33, 0.33), (0.4, 0.6, 0.0))
"""Probabilities at x and at ξ, of three classes; the first is the label."""


def lemma10_of(subject: Subject) -> Outcome:
    """Every point that the attack visited on samples that are right when clean."""
    whole = walk_all(subject)
    path = whole[whole.right()]
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
    p = torch.tensor(RIGHT_THEN_WRONG, dtype=torch.float64)
    before, after = cross_entropy(p.log(), torch.tensor([0, 0])).tolist()
    n = int(visited.wrong.sum())
    fell = int((visited.rise[visited.wrong] <= 0).sum())
    return unbroken(
        fell,
        n,
        name="flips-rise",
        claim="A point whose prediction flipped has a larger loss than the clean image (first "
        "half of Lemma 10).",
        paper="always",
        rule="no choice of probabilities breaks it",
        verdict="refuted" if after < before else "agrees",
        note=f"Counterexample with three classes: {RIGHT_THEN_WRONG[0]} is right with loss "
        f"{before:.3f}, {RIGHT_THEN_WRONG[1]} wrong with {after:.3f}. Of the visited points that "
        f"flipped, {fell} of {n} had no larger loss. What holds: the rise is at least "
        "log 2 - ℓ(x), which is positive where x has more than 50% confidence.",
    )


def _wrong_above_log_k(path: Path) -> Claim:
    log_k = rise_that_flips(path.logits.shape[2])
    loss = path.loss()[path.wrong()]
    low, n = int((loss < log_k).sum()), len(loss)
    return unbroken(
        low,
        n,
        name="premise",
        claim="A wrong prediction has a cross-entropy of at least log k (the premise of the "
        "second half).",
        paper="always",
        rule="no wrong prediction breaks it",
        verdict="refuted" if low else "agrees",
        note=f"{low} of {n} visited wrong predictions have a loss below log k = {log_k:.3f}, the "
        f"least {float(loss.min()):.3f}; log 2 = 0.693 is what holds."
        if n
        else "the attack visited no wrong prediction",
    )


def _large_rises_flip(path: Path, visited: Visited) -> Claim:
    log_k = rise_that_flips(path.logits.shape[2])
    large = visited.rise > log_k
    flipped, n = int((large & visited.wrong).sum()), int(large.sum())
    name = "large-rises-flip"
    claim = "A rise of the loss above log k flips the prediction (second half of Lemma 10)."
    rule = "every such point is wrong"
    if not n:
        return not_measured(name, claim, "always", rule, "no visited point rose so far")
    return share(
        flipped,
        n,
        name=name,
        claim=claim,
        paper="always",
        rule=rule,
        verdict=agrees_if(flipped == n),
        note="It needs no premise: p_y < 1/k leaves more for another class.",
    )


def _least_rise(path: Path) -> Claim:
    wrong, rise = path.wrong(), path.rise()
    least = torch.from_numpy(least_rise_of_flip(path.loss()[0].numpy()))
    slack = (rise - least)[wrong]
    name, claim = "least-rise", "What holds of the first half: flips rise by log 2 - ℓ(x) or more."
    rule = "no visited flip rose by less, up to 1e-6"
    if not len(slack):
        return not_measured(name, claim, "not stated", rule, "nothing flipped")
    held, n = int((slack >= -1e-6).sum()), len(slack)
    sure = int((least > 0).sum())
    return share(
        held,
        n,
        name=name,
        claim=claim,
        paper="not stated",
        rule=rule,
        verdict=agrees_if(held == n),
        note=f"{sure} of {len(least)} clean images have more than 50% confidence, so that every "
        "flip of theirs is a loss-change adversarial example.",
    )


def _epsilon_star(visited: Visited, delta: float) -> Claim:
    name = "epsilon-star"
    claim = "With the tolerance ε_*(S; δ) loss-change robustness lets no flip through (Def. 6)."
    rule = "no sample that flips within δ is left robust just below ε_*"
    star = epsilon_star(visited, delta)
    if star is None:
        return not_measured(name, claim, "always", rule, "nothing flips within δ")
    robust = robust_within(visited, delta, math.nextafter(star, -math.inf))
    flips = _flips(visited, delta)
    missed = int((robust & flips).sum())
    stricter = int((~robust & ~flips).sum())
    note = (
        f"ε_* over the visited points, an upper bound of the infimum. {missed} of "
        f"{int(flips.sum())} flips are let through; {stricter} of {int((~flips).sum())} samples "
        "that do not flip are refused too: it is the stricter notion."
    )
    if star <= 0:
        note += " It is not positive, so Definition 5 has no tolerance that does this."
    return Claim(
        name=name,
        claim=claim,
        paper="always",
        ours=star,
        samples=len(flips),
        rule=rule,
        verdict=agrees_if(missed == 0),
        note=note,
    )


def _flips(visited: Visited, delta: float) -> np.ndarray:
    """Which samples were seen wrong within δ, `(n,)`."""
    first = np.unique(visited.sample, return_index=True)[1]
    flips: np.ndarray = np.logical_or.reduceat(visited.wrong & visited.within(delta), first)
    return flips
