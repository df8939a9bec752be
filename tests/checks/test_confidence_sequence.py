"""The confidence sequence covers the true count whenever one stops; simulated."""

import numpy as np
import pandas as pd
import pytest

from flatguard.checks.confidence_sequence import EVIDENCE, count_bounds, sign_evidence
from flatguard.checks.evidence import Drawn, Evidence

RUNS = 1500


@pytest.mark.parametrize(
    ("population", "count"), [(60, 0), (60, 3), (60, 30), (200, 150), (37, 37)]
)
def test_coverage_under_the_worst_stopping(population: int, count: int) -> None:
    """A reader who looks after every draw and stops as soon as the bounds miss the truth."""
    generator = np.random.default_rng(0)
    items = np.arange(population) < count
    looks = range(1, population + 1, 2)
    bounds = {(m, f): count_bounds(population, m, f, 0.95) for m in looks for f in range(m + 1)
              if f <= population and m - f <= population}  # fmt: skip
    missed = 0
    for _ in range(RUNS):
        found = np.cumsum(generator.permutation(items))
        missed += any(
            not bounds[m, int(found[m - 1])][0] <= count <= bounds[m, int(found[m - 1])][1]
            for m in looks
        )
    assert missed / RUNS <= 0.05


def test_bounds_know_that_the_population_is_finite() -> None:
    assert count_bounds(40, 40, 13, 0.95) == (13, 13)
    assert count_bounds(40, 0, 0, 0.95) == (0, 40)
    least, most = count_bounds(40, 39, 13, 0.95)
    assert (least, most) == (13, 14)
    assert count_bounds(500, 20, 20, 0.95)[0] > 350


@pytest.mark.parametrize("count", [5, 20])
def test_bounds_hold_exactly_by_enumeration(count: int) -> None:
    """Against the prior-posterior ratio as the paper writes it, with a uniform prior."""
    from math import comb

    population, drawn = 25, 6
    for found in range(max(0, drawn - (population - count)), min(drawn, count) + 1):
        weights = [
            comb(total, found) * comb(population - total, drawn - found)
            for total in range(population + 1)
        ]
        prior = 1 / (population + 1)
        kept = [
            total
            for total, weight in enumerate(weights)
            if weight and prior / (weight / sum(weights)) < 1 / 0.05
        ]
        assert count_bounds(population, drawn, found, 0.95) == (kept[0], kept[-1])


@pytest.mark.parametrize("favour", [0.5, 0.45, 0.1])
def test_a_coin_without_favour_seldom_reaches_the_evidence(favour: float) -> None:
    generator, reached = np.random.default_rng(0), 0
    for _ in range(RUNS):
        heads = np.cumsum(generator.random(200) < favour)
        reached += any(
            sign_evidence(int(h), n - int(h)) >= EVIDENCE for n, h in enumerate(heads, 1)
        )
    assert reached / RUNS <= 1 / EVIDENCE


def test_what_is_evidence_enough() -> None:
    assert sign_evidence(0, 0) == pytest.approx(1.0)
    assert sign_evidence(6, 0) < EVIDENCE <= sign_evidence(7, 0)
    assert sign_evidence(10_000, 0) > 1e100


@pytest.mark.parametrize(("first", "second"), [(5, 0), (7, 2), (3, 9)])
def test_the_evidence_is_the_mean_likelihood_ratio(first: int, second: int) -> None:
    coins = 0.5 + (np.arange(100_000) + 0.5) / 200_000
    ratios = (2 * coins) ** first * (2 * (1 - coins)) ** second
    assert sign_evidence(first, second) == pytest.approx(ratios.mean(), rel=1e-6)


def test_the_corrected_interval_covers_the_share_of_all_images_one_could_draw() -> None:
    """Images are a sample, survivors of them are drawn, and a reader stops where it misses."""
    generator, n, robust, fooled, missed = np.random.default_rng(1), 120, 0.7, 0.6, 0
    truth = robust * (1.0 - fooled)
    kept: dict[tuple[int, int, int], tuple[float, float]] = {}
    for _ in range(RUNS):
        survivors = int(generator.binomial(n, robust))
        falls = generator.random(survivors) < fooled
        looks = [drawn for drawn in (12, 24, 48) if drawn <= survivors / 2]
        intervals = []
        for drawn in looks:
            key = (survivors, drawn, int(falls[:drawn].sum()))
            if key not in kept:
                evidence = evidence_of(n, survivors, drawn)
                least, most = evidence.bounds(set(range(key[2])))
                kept[key] = evidence.share_interval(survivors - most, survivors - least)
            intervals.append(kept[key])
        missed += any(not low <= truth <= high for low, high in intervals)
    assert missed / RUNS <= 0.05


def evidence_of(n: int, survivors: int, drawn: int) -> Evidence:
    samples = pd.DataFrame({"sample": range(n), "robust": [i < survivors for i in range(n)]})
    return Evidence(
        num_classes=10, eps=0.1, norm="Linf", attack="a", attack_args={}, samples=samples,
        trajectory=(), probes={}, drawn=Drawn(frozenset(range(drawn)), survivors),
    )  # fmt: skip
