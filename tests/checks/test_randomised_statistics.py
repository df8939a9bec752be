"""The corrected accuracy of a randomised target, against simulated truth."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from support.evidence import determinism, evidence

from flatguard.checks.evidence import Evidence, ProbeEvidence
from flatguard.checks.statistics import interval

N, DRAWS, FIRST, RUNS = 100, 101, 21, 300

CHANCES: dict[str, Callable[[np.random.Generator], np.ndarray]] = {
    "uniform": lambda random: random.uniform(size=N),
    "mostly near one half": lambda random: random.beta(8, 8, size=N),
    "two kinds": lambda random: np.where(random.uniform(size=N) < 0.4, 0.05, 0.8),
    "mostly robust": lambda random: random.beta(1, 4, size=N),
}
"""P(wrong) of the best example of each sample."""


def simulated(random: np.random.Generator, chances: np.ndarray) -> Evidence:
    """One run: a single draw decides survival, fresh draws decide afterwards."""
    survived = np.flatnonzero(random.uniform(size=N) >= chances)
    probe = determinism(N, randomised=True, survivors=survived)
    probe.tables["survival"]["wrong"] = random.binomial(FIRST, chances) / FIRST
    fresh = pd.DataFrame({"sample": range(N), "wrong": random.binomial(DRAWS, chances) / DRAWS})
    confirmed = ProbeEvidence({"ran": True, "draws": DRAWS}, {"confirmed": fresh})
    return evidence(N, survived, {"determinism": probe, f"confirmed-{DRAWS}": confirmed})


@pytest.mark.parametrize("name", CHANCES)
def test_the_estimate_has_no_bias_and_its_interval_covers(name: str) -> None:
    random = np.random.default_rng(0)
    truth = float(np.mean([(CHANCES[name](random) <= 0.5).mean() for _ in range(2_000)]))
    found, covered = [], 0
    for _ in range(RUNS):
        run = simulated(random, CHANCES[name](random))
        found.append(run.corrected / N)
        low, high = interval(run.corrected, N)
        covered += low <= truth <= high
    assert np.mean(found) == pytest.approx(truth, abs=0.01)
    assert covered / RUNS >= 0.93


def test_single_draws_are_corrected_in_both_directions() -> None:
    """With a uniform P(wrong) one half is right; a single draw finds it too, by other samples."""
    random = np.random.default_rng(1)
    runs = [simulated(random, random.uniform(size=N)) for _ in range(50)]
    assert np.mean([run.corrected / N for run in runs]) == pytest.approx(0.5, abs=0.02)
    assert all(run.given_back for run in runs)
    assert all(run.fooled & run.reported for run in runs)
