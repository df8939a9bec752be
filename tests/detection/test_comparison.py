"""Comparisons on constructed scores, so that every number is known."""

import numpy as np
import pytest

from flatguard.detection.comparison import AttackAtRadius, ScoredAttack, compare, worst_case
from flatguard.detection.detector_set import DetectorSet
from flatguard.targets import Target


@pytest.fixture
def detectors(digits_net: Target) -> DetectorSet:
    found = DetectorSet(digits_net, 10, 0)
    clean = np.linspace(-1, 1, 399)
    found.calibrate({"log-kappa": clean, "odds": clean})
    return found


def scored_attack(
    moved: np.ndarray, successful: list[int], attack: str = "one", eps: str = "0.1"
) -> ScoredAttack:
    clean = np.linspace(-0.9, 0.9, 20)
    scores = {"log-kappa": clean, "odds": clean}
    after = {"log-kappa": moved, "odds": -moved}
    right = np.ones(20, dtype=bool)
    right[0] = False
    failed = np.setdiff1d(np.arange(1, 20), successful)
    fooled = np.array(successful, dtype=int)
    at = AttackAtRadius(attack, eps)
    return ScoredAttack(at, scores, scores, after, right, fooled, failed)


def test_every_number_of_a_comparison(detectors: DetectorSet) -> None:
    moved = np.full(20, -5.0)
    moved[[3, 4]] = 0.0
    scored = scored_attack(moved, list(range(1, 11)))
    found = compare(detectors, scored, scored, 0)
    assert list(found) == ["log-kappa", "odds"]
    kappa, odds = found["log-kappa"], found["odds"]
    assert (kappa.side, odds.side) == ("two-sided", "high")
    assert kappa.tpr_at_5_fpr == kappa.tpr_at_1_fpr == odds.tpr_at_5_fpr == 0.8
    assert (kappa.direction, odds.direction) == ("low", "high")
    five = kappa.at[0]
    assert (five.clean.count, five.clean.of, five.clean_wrong.of) == (0, 20, 1)
    assert (five.noisy.count, five.noisy.of) == (0, 20)
    assert (five.failed.of, five.successful.of) == (9, 10)
    assert kappa.auroc == pytest.approx(odds.auroc, abs=0.2)
    assert kappa.auroc_one_sided is not None
    assert kappa.auroc_one_sided > 0.8
    assert kappa.stump_folds is not None
    assert kappa.stump_accuracy == pytest.approx(np.mean(kappa.stump_folds))
    assert kappa.stump_unseen is not None
    assert kappa.stump_unseen >= 0.85


def test_without_a_successful_example_nothing_is_measured(detectors: DetectorSet) -> None:
    scored = scored_attack(np.zeros(20), [])
    kappa = compare(detectors, scored, scored, 0)["log-kappa"]
    assert (kappa.auroc, kappa.stump_folds, kappa.tpr_at_5_fpr) == (None, None, None)
    assert (kappa.direction, kappa.stump_unseen) == (None, None)
    assert kappa.at[0].successful.interval == (0.0, 1.0)


def test_too_few_pairs_fit_no_stump(detectors: DetectorSet) -> None:
    kappa = compare(
        detectors, scored_attack(np.full(20, -5.0), [1, 2]),
        scored_attack(np.full(20, -5.0), list(range(1, 11))), 0,
    )["log-kappa"]  # fmt: skip
    assert kappa.stump_folds is None
    assert kappa.stump_unseen == 1.0


def test_a_missing_score_is_flagged_and_the_most_unusual(detectors: DetectorSet) -> None:
    scored = scored_attack(np.full(20, np.nan), list(range(1, 11)))
    kappa = compare(detectors, scored, scored, 0)["log-kappa"]
    assert kappa.tpr_at_1_fpr == 1.0
    assert kappa.auroc == 1.0
    assert kappa.direction == "low"
    assert kappa.stump_folds is None


def test_the_worst_case_counts_samples_whose_every_success_is_flagged(
    detectors: DetectorSet,
) -> None:
    caught = scored_attack(np.full(20, -5.0), [1, 2, 3, 4])
    missed = scored_attack(np.zeros(20), [4, 5], "two")
    elsewhere = scored_attack(np.zeros(20), [4, 5], "one", "0.2")
    first, second = worst_case(detectors, [caught, missed, elsewhere])
    assert (first.eps, first.attacks) == ("0.1", ("one", "two"))
    assert (first.caught["log-kappa"][0].count, first.caught["log-kappa"][0].of) == (3, 5)
    assert (second.eps, second.attacks) == ("0.2", ("one",))
    assert (second.caught["log-kappa"][0].count, second.caught["log-kappa"][0].of) == (0, 2)
