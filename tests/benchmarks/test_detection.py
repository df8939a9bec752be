"""The page of the detection study is drawn by its template."""

from pathlib import Path

import pytest

from benchmarks.detection import page
from flatguard.detection.results import (
    AdaptiveAtRadius,
    AdaptiveAtRate,
    AttackResult,
    DetectionExperiment,
    DetectorResult,
    OperatingPoint,
    Share,
    Split,
    WorstCase,
)

DOCS = Path(__file__).parents[2] / "docs"
HALF = Share(count=5, of=10, share=0.5, interval=(0.2, 0.8))
NONE = Share(count=0, of=0, share=None, interval=(0.0, 1.0))


def detector(auroc: float | None) -> DetectorResult:
    at = tuple(
        OperatingPoint(
            asked=rate, clean=HALF, clean_wrong=NONE, noisy=HALF, successful=HALF, failed=NONE
        )
        for rate in (0.05, 0.01)
    )
    return DetectorResult(
        side="low", auroc=auroc, auroc_interval=auroc and (0.7, 0.9), auroc_one_sided=auroc,
        direction=auroc and "low", stump_accuracy=auroc, stump_folds=auroc and (0.8,) * 5,
        stump_unseen=None, tpr_at_5_fpr=0.5, tpr_at_1_fpr=0.5, at=at,
    )  # fmt: skip


@pytest.fixture
def experiment() -> DetectionExperiment:
    results = tuple(
        AdaptiveAtRate(asked=rate, misclassified=HALF, evaded=HALF, by_way={})
        for rate in (0.05, 0.01)
    )
    return DetectionExperiment(
        model="m", weights_sha256="0", logit_scale=1.0, data="images", data_sha256="0",
        split=Split(evaluated=10, fitted=5, calibrated=200, seed=3),
        attacks=(
            AttackResult(
                attack="PGD", norm="Linf", eps="0.1", clean_wrong=1, successful=5, failed=4,
                detectors={"log-kappa": detector(0.8), "odds": detector(None)},
            ),
        ),
        worst=(
            WorstCase(
                eps="0.1", attacks=("PGD",), caught={"log-kappa": (HALF, NONE), "odds": (NONE,) * 2}
            ),
        ),
        adaptive=(AdaptiveAtRadius(norm="Linf", eps="0.1", steps=1, starts=1, results=results),),
        missing={"lid": "too few images"}, departures={}, versions={},
    )  # fmt: skip


def test_every_number_is_in_its_column(experiment: DetectionExperiment) -> None:
    lines = page({"net": experiment}, None).splitlines()
    share = "50.0% (20 to 80)"
    for line in (
        "## net",
        "10 images evaluated, 5 to fit, 200 to calibrate, drawn from images with seed 3.",
        "lid is missing: too few images.",
        f"| 0.1 | {share} | {share} | {share} |",
        "| ε | log-kappa | odds |",
        "|---|---|---|",
        "| 0.1, 5% | 50.0% | – |",
        "| 0.1, 1% | – | – |",
        f"| log-kappa | 0.800 (0.700 to 0.900) | 0.800 ↓ | 80.0% | 80 80 80 80 80 | – | {share} | "
        f"{share} | 50.0% / – / 50.0% | – |",
        f"| odds | – | – | – | – | – | {share} | {share} | 50.0% / – / 50.0% | – |",
    ):
        assert line in lines


def test_the_committed_page_is_of_this_template(experiment: DetectionExperiment) -> None:
    committed = (DOCS / "detection-study.md").read_text("utf-8")
    assert committed.startswith(page({}, None).rstrip("\n"))
    for line in page({"net": experiment}, None).splitlines():
        if line.startswith(("### The", "### Worst", "Of the", "| ε | misc", "| detector |")):
            assert line in committed
