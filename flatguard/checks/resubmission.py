"""Accuracy under resubmission: what is left of a randomised target if an attacker may try again.

A defence that draws anew at every call is asked as often as an attacker likes, and one wrong answer
is enough.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict

from flatguard.checks.evidence import CONFIRMED, Evidence
from flatguard.checks.statistics import mean_interval

TRIES = (1, 10, 100)


class Resubmission(BaseModel):
    """The expected accuracy where each sample's best example is shown `tries` times.

    Attributes:
        tries: how often the attacker may show it; one wrong answer is a success.
        accuracy: the expected share of samples that are right every time.
        interval: at least 95%, over the choice of the images.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    tries: int
    accuracy: float
    interval: tuple[float, float]


def resubmissions(evidence: Evidence) -> list[Resubmission]:
    """For 1, 10 and 100 tries; empty where single passes decide, or without fresh draws.

    Samples without an answer count as wrong.
    """
    probe = evidence.probe(CONFIRMED)
    if probe is None or CONFIRMED not in probe.tables:
        return []
    draws = int(probe.facts["draws"])
    wrong = np.rint(probe.tables[CONFIRMED]["wrong"].to_numpy(float) * draws).astype(int)
    found = []
    for tries in TRIES:
        if tries > draws:
            continue
        right = float(sum(right_every_time(int(w), draws, tries) for w in wrong))
        found.append(
            Resubmission(
                tries=tries,
                accuracy=right / evidence.n,
                interval=mean_interval(right, evidence.n),
            )
        )
    return found


def right_every_time(wrong: int, draws: int, tries: int) -> float:
    r"""The unbiased estimate of $(1 - p)^k$ from $w$ wrong of $N$ draws.

    It is $\binom{N - w}{k} / \binom{N}{k}$: the share of all choices of $k$ of the draws that hold
    no wrong one. A power of $1 - w / N$ is too high.
    """
    left = np.arange(tries)
    if wrong > draws - tries:
        return 0.0
    return float(np.prod((draws - wrong - left) / (draws - left)))


def in_words(found: Sequence[Resubmission]) -> str:
    """`43%, 12% and 2% are left where an attacker may try 1, 10 and 100 times`."""
    shares = _listed([f"{one.accuracy:.0%}" for one in found])
    tries = _listed([str(one.tries) for one in found])
    return f"an attacker who may try {tries} times leaves {shares}"


def _listed(words: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))
