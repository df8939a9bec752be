"""Accuracy where an attacker may show an example again."""

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.evidence import determinism, judged_by

from flatguard.checks.evidence import CONFIRMED, Evidence, ProbeEvidence
from flatguard.checks.resubmission import in_words, resubmissions, right_every_time
from flatguard.checks.statistics import mean_interval


@given(st.integers(1, 60), st.data())
def test_the_estimate_is_the_share_of_choices_without_a_wrong_draw(draws: int, data) -> None:
    wrong, tries = data.draw(st.integers(0, draws)), data.draw(st.integers(1, draws))
    exact = Fraction(math.comb(draws - wrong, tries), math.comb(draws, tries))
    assert right_every_time(wrong, draws, tries) == pytest.approx(float(exact), abs=1e-12)


@pytest.mark.parametrize("p", [0.01, 0.1, 0.4])
@pytest.mark.parametrize("tries", [1, 10])
def test_the_estimate_has_no_bias(p: float, tries: int) -> None:
    wrong = np.random.default_rng(0).binomial(101, p, 20_000)
    found = np.array([right_every_time(int(w), 101, tries) for w in wrong])
    error = found.std() / math.sqrt(len(found))
    assert abs(found.mean() - (1 - p) ** tries) < 4 * error + 1e-12


@pytest.mark.parametrize("a", [0.05, 1.0, 5.0])
def test_the_interval_covers_the_accuracy(a: float) -> None:
    """Images with P(right) from Beta(a, a), one binomial share each."""
    rng = np.random.default_rng(1)
    right = rng.binomial(101, rng.beta(a, a, (2000, 50))).sum(axis=1) / 101
    inside = [low <= 0.5 <= high for low, high in (mean_interval(float(r), 50) for r in right)]
    assert np.mean(inside) >= 0.95


def test_a_mean_without_trials_or_at_an_end_is_not_certain() -> None:
    assert mean_interval(0.0, 0) == (0.0, 1.0)
    assert mean_interval(0.0, 10)[0] == 0.0 < mean_interval(0.0, 10)[1]
    assert mean_interval(10.0, 10)[1] == 1.0 > mean_interval(10.0, 10)[0]


def drawn(wrong: list[float], draws: int = 101) -> ProbeEvidence:
    table = pd.DataFrame({"sample": range(len(wrong)), "wrong": wrong})
    return ProbeEvidence({"ran": True, "draws": draws}, {CONFIRMED: table})


def confirmed(probe: ProbeEvidence) -> Evidence:
    found = judged_by(repeated=determinism(100, randomised=True))
    return replace(found, probes={**found.probes, CONFIRMED: probe})


def test_one_wrong_draw_in_a_hundred_is_found_by_an_attacker_who_may_try_a_hundred_times() -> None:
    random = confirmed(drawn([0.0] * 40 + [1 / 101] * 30 + [1.0] * 30))
    once, ten, hundred = resubmissions(random)
    assert once.accuracy == pytest.approx(0.4 + 0.3 * 100 / 101)
    assert ten.accuracy == pytest.approx(0.4 + 0.3 * 91 / 101)
    assert hundred.accuracy == pytest.approx(0.4 + 0.3 * 1 / 101)
    assert all(one.interval[0] < one.accuracy < one.interval[1] for one in (once, ten, hundred))
    assert in_words([once, ten]) == "an attacker who may try 1 and 10 times leaves 70% and 67%"


def test_few_draws_say_nothing_about_many_tries() -> None:
    found = confirmed(drawn([0.5] * 100, 20))
    assert [one.tries for one in resubmissions(found)] == [1, 10]


def test_a_target_that_is_not_random_has_none() -> None:
    assert resubmissions(judged_by()) == []
