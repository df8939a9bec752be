"""Outcomes: which end of an interval decides, and what does not pass."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from support import detectors

import flatguard
from flatguard.checks.error_rates import images_needed, wrong_pass
from flatguard.checks.statistics import interval
from flatguard.checks.verdict import verdict_of
from flatguard.detection import SharpnessDetector
from flatguard.detection.flagging import Kinds, load_detection
from flatguard.gate.config import Thresholds
from flatguard.gate.outcome import Outcome, exit_code, labels, outcomes
from flatguard.runs.run import Run, load_run


@pytest.fixture(scope="module")
def run(digits_files: Path, file: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    out = tmp_path_factory.mktemp("runs") / "run"
    return detectors.evaluate(digits_files, out, detector=file)


def held(run: Run, **thresholds: Any) -> Outcome:
    """The last outcome, of the one threshold for a detector that is set."""
    asked = Thresholds(**thresholds)
    found = outcomes(run, verdict_of(run), asked)
    assert [outcome.label for outcome in found] == labels(asked)
    return found[-1]


def kinds(run: Run) -> Kinds:
    found = load_detection(run)
    assert found is not None
    return found.kinds


def test_the_lower_end_of_what_is_detected_decides(run: Run) -> None:
    found = kinds(run).successful
    low, share = found.interval[0], found.share
    assert share is not None
    limits = (low, (low + share) / 2, (share + 1) / 2)
    open_, near, far = (held(run, min_detected=x) for x in limits)
    assert (open_.name, open_.status) == ("min_detected", "passed")
    assert "evades it on 97.0% (95% interval" in open_.headline
    assert (near.status, far.status) == ("failed", "failed")
    assert near.headline.endswith("evaluate more samples")
    assert not far.headline.endswith("evaluate more samples")
    assert "evades it on 97.0%" in near.text
    assert f"{found.flagged} of {found.samples} successful adversarial examples" in near.text
    assert exit_code([near]) == 1


def test_the_upper_end_of_false_positives_decides(run: Run) -> None:
    found = kinds(run).clean
    high, share = found.interval[1], found.share
    assert share is not None
    open_, near, far = (
        held(run, max_false_positives=x) for x in (high, (high + share) / 2, share - 0.05)
    )
    assert (open_.name, open_.status) == ("max_false_positives", "passed")
    assert (near.status, far.status) == ("failed", "failed")
    assert near.headline.endswith("evaluate more images")
    assert not far.headline.endswith("evaluate more images")
    assert f"{found.flagged} of {found.samples} clean images" in near.text


def test_without_fooled_samples_nothing_passes(digits_files: Path, file: Path) -> None:
    tiny = detectors.evaluate(digits_files, "run", eps=1e-6, detector=file, n_examples=40)
    assert kinds(tiny).successful.samples == 0
    found = held(tiny, min_detected=0.0)
    assert found.status == "undecided"
    assert "fooled the model on no sample, so there was nothing to detect" in found.headline
    assert exit_code([found]) == 3
    assert held(tiny, min_detected=0.0, allow=("detection",)).status == "allowed"


def test_a_run_that_no_detector_flagged_is_undecided(digits_files: Path) -> None:
    bare = detectors.evaluate(digits_files, "run", n_examples=40)
    for name in ("min_detected", "max_false_positives"):
        found = held(bare, **{name: 0.5}, allow=("detection",))
        assert found.status == "undecided"
        assert "no detector was applied" in found.headline
        assert "audit run --detector FILE" in found.text


def test_false_positives_on_calibration_images_prove_nothing(
    digits_files: Path, run: Run, tmp_path: Path
) -> None:
    same = SharpnessDetector(detectors.target(digits_files)).fit(detectors.attacked()[0])
    same.save("same.json")
    shutil.copytree(run.path, tmp_path / "copy")
    copy = load_run(tmp_path / "copy")
    flatguard.audit(copy, detector="same.json")
    assert kinds(copy).clean.interval[1] < 0.1
    found = held(copy, max_false_positives=0.1, allow=("detection",))
    assert found.status == "undecided"
    assert "have the score of a calibration image" in found.headline


def test_an_unfinished_run_passes_nothing(digits_files: Path, file: Path) -> None:
    part = detectors.evaluate(
        digits_files, "run", detector=file, batch_size=50, max_forwards=50 * 20 + 10
    )
    assert not part.complete
    assert held(part, min_detected=0.0).status == "undecided"
    assert held(part, max_false_positives=0.99).status == "undecided"


def test_a_sample_without_kappa_is_flagged_and_not_detected(digits_files: Path) -> None:
    run = detectors.touched(digits_files, "run")
    found = kinds(run).successful
    assert found.unmeasured > 3
    between = (found.interval[0] + interval(found.recognised, found.samples)[0]) / 2
    assert held(run, min_detected=between).status == "failed"


def test_a_wrong_pass_is_undecided_until_there_are_enough_images(run: Run) -> None:
    n = len(run.samples)
    verdict = verdict_of(run).model_copy(update={"overestimate": 2 / n})

    def named(**thresholds: Any) -> Outcome:
        found = outcomes(run, verdict, Thresholds(**thresholds))
        return next(outcome for outcome in found if outcome.name == "max_wrong_pass")

    chance = wrong_pass(2, n, 0.05)
    assert named(max_wrong_pass=chance).status == "passed"
    few = named(max_wrong_pass=chance * 0.5)
    needed = images_needed(2 / n, 0.05, chance * 0.5)
    assert few.status == "undecided"
    assert f"evaluate {needed:,} images" in few.text
    assert exit_code([few]) == 3
    # Where the overestimate itself shuts the gate, nothing passes wrongly.
    assert named(max_wrong_pass=1e-9, max_overestimate=1 / n).status == "passed"
