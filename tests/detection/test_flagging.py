"""What a detector flags in runs of real attacks, and which detectors and files are refused."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta
from support import detectors, digits
from torch import Tensor

import flatguard
from flatguard.detection import SharpnessDetector
from flatguard.detection.detector_file import SavedDetector
from flatguard.detection.flagging import (
    DETECTION,
    Detection,
    Flagged,
    Kinds,
    _seen,
    distances_of,
    load_detection,
    scores_of,
)
from flatguard.errors import DetectorError, RunFolderError, UsageError
from flatguard.reporting.report import write_report
from flatguard.runs.run import Run, load_run


@pytest.fixture(scope="module")
def fitted(digits_files: Path) -> SharpnessDetector:
    return detectors.detector(digits_files, alpha=0.3, side="high")


@pytest.fixture(scope="module")
def file(fitted: SharpnessDetector, tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("detectors") / "d.json"
    fitted.save(found)
    return found


@pytest.fixture(scope="module")
def whole(digits_files: Path, file: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with a detector; no test changes it."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    return detectors.evaluate(digits_files, out, detector=file)


@pytest.fixture
def run(whole: Run, tmp_path: Path) -> Run:
    shutil.copytree(whole.path, tmp_path / "run")
    return load_run(tmp_path / "run")


def found_in(run: Run) -> Detection:
    found = load_detection(run)
    assert found is not None
    return found


def counts(found: Flagged) -> tuple[int, int]:
    return found.flagged, found.samples


def expected(run: Run, fitted: SharpnessDetector, clean: Tensor) -> dict[str, tuple[int, int]]:
    """The same counts from the estimator, on the images."""
    before = fitted.predict(clean) == -1
    after = fitted.predict(detectors.adversarial(run)) == -1
    right, robust = (run.samples[name].to_numpy(bool) for name in ("clean_correct", "robust"))
    inside = run.samples["admissible"].to_numpy(bool)
    chosen = {
        "clean": before, "clean_right": before[right], "clean_wrong": before[~right],
        "successful": after[right & ~robust], "failed": after[right & robust & inside],
    }  # fmt: skip
    return {name: (int(flags.sum()), len(flags)) for name, flags in chosen.items()}


def test_it_flags_what_the_estimator_flags(whole: Run, fitted: SharpnessDetector) -> None:
    kinds = found_in(whole).kinds
    said = expected(whole, fitted, detectors.attacked()[0])
    assert {name: counts(getattr(kinds, name)) for name in Kinds.model_fields} == said
    assert said["successful"] > (10, 40)  # there is something to count
    assert said["clean"][0] > 10


def test_per_class_thresholds_judge_by_the_class_that_is_predicted(
    digits_files: Path, whole: Run
) -> None:
    fitted = detectors.detector(digits_files, alpha=0.3, per_class=True)
    fitted.save("per-class.json")
    shutil.copytree(whole.path, "copy")
    run = load_run("copy")
    flatguard.audit(run, detector="per-class.json")
    found = found_in(run)
    assert len(found.thresholds) == 10
    said = expected(run, fitted, detectors.attacked()[0])
    assert {name: counts(getattr(found.kinds, name)) for name in Kinds.model_fields} == said
    for name, inside in distances_of(run, found).items():
        assert int((inside < 0).sum()) == getattr(found.kinds, name).flagged


def test_kinds_are_parts_of_the_run_and_intervals_exact(whole: Run) -> None:
    found = found_in(whole)
    kinds = found.kinds
    assert kinds.clean.samples == len(whole.samples) == 200
    for attribute in ("samples", "flagged"):
        parts = (getattr(kinds.clean_right, attribute), getattr(kinds.clean_wrong, attribute))
        assert sum(parts) == getattr(kinds.clean, attribute)
    tried = kinds.successful.samples + kinds.failed.samples + found.outside_budget
    assert tried == kinds.clean_right.samples == int(whole.samples["clean_correct"].sum())
    for kind in (kinds.clean, kinds.successful):
        k, n = kind.flagged, kind.samples
        wanted = (beta.ppf(0.025, k, n - k + 1), beta.ppf(0.975, k + 1, n - k))
        assert kind.interval == pytest.approx(wanted)
        assert kind.share == k / n
    assert {name: len(scores) for name, scores in scores_of(whole).items()} == {
        name: getattr(kinds, name).samples for name in Kinds.model_fields
    }


def test_the_detectors_own_facts(whole: Run, file: Path) -> None:
    found, kept = found_in(whole), SavedDetector.open(file)
    assert found.detector_sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert SavedDetector.open(kept).sha256 == found.detector_sha256
    assert (found.alpha, found.side, found.per_class) == (0.3, "high", False)
    assert found.calibration_scores == len(detectors.calibration())
    assert found.adversarial_sha256 == whole.adversarial_sha256()
    assert found.adaptive is None
    assert "was not measured" in found.adaptive_evidence
    assert whole.summary["detection"] == found.model_dump(mode="json")
    assert json.loads((whole.path / DETECTION).read_text("utf-8")) == whole.summary["detection"]


def test_the_number_against_it_is_the_files(
    fitted: SharpnessDetector, run: Run, tmp_path: Path
) -> None:
    fitted.save(tmp_path / "a.json", adaptive=detectors.ADAPTIVE)
    flatguard.audit(run, detector=SavedDetector.open(tmp_path / "a.json"))
    found = found_in(run)
    assert found.adaptive == detectors.ADAPTIVE
    assert found.adaptive_evidence == (
        "an attacker who knows the detector fools the model on 99.5% of 200 images and evades it "
        "on 97.0% (95% interval 93.6% to 98.9%), within Linf 8/255"
    )


def test_examples_outside_the_budget_are_neither_successful_nor_failed(
    digits_files: Path, file: Path
) -> None:
    run = detectors.evaluate(
        digits_files, "run", attack="torchattacks:DeepFool", attack_args={}, eps=0.5, detector=file,
        n_examples=50,
    )  # fmt: skip
    found = found_in(run)
    outside = int((run.samples["clean_correct"] & ~run.samples["admissible"]).sum())
    assert found.outside_budget == outside > 0
    kinds = found.kinds
    assert kinds.successful.samples + kinds.failed.samples + outside == kinds.clean_right.samples


def test_what_could_not_be_measured_is_flagged_and_counted_apart(digits_files: Path) -> None:
    run = detectors.touched(digits_files, "run")
    found, missing = found_in(run).kinds.clean, int(run.samples["clean_log_kappa"].isna().sum())
    assert found.unmeasured == missing > 5
    assert found.flagged > missing
    assert found.recognised == found.flagged - missing
    assert f"({missing} without log κ)" in str(found)


@pytest.mark.parametrize("wrong", ["weights", "scale", "file", "kind"])
def test_a_wrong_detector_is_refused_before_the_attack(
    digits_files: Path, file: Path, tmp_path: Path, wrong: str
) -> None:
    asked: dict[str, Any] = {"detector": file}
    if wrong == "weights":
        asked |= {"model": digits.digits_net(), "data": detectors.attacked(), "arch": None}
    elif wrong == "scale":
        asked["logit_scale"] = 10.0
    elif wrong == "file":
        asked["detector"] = "nowhere.json"
    else:
        asked["detector"] = 3
    before = set(tmp_path.iterdir())
    expected = {
        "weights": "was fitted on digits .* not on Sequential", "scale": "another --logit-scale",
        "file": "cannot read nowhere.json", "kind": "expected a path or a SavedDetector, got int",
    }  # fmt: skip
    with pytest.raises((DetectorError, UsageError), match=expected[wrong]) as caught:
        detectors.evaluate(digits_files, tmp_path / "run", **asked)
    assert "\n" not in str(caught.value)
    assert set(tmp_path.iterdir()) == before


def test_audit_keeps_it_and_refuses_another_models(
    run: Run, fitted: SharpnessDetector, digits_files: Path, tmp_path: Path
) -> None:
    before = (run.path / DETECTION).read_bytes()
    flatguard.audit(run)
    assert (run.path / DETECTION).read_bytes() == before
    assert run.summary["detection"] is not None
    scaled = SharpnessDetector(detectors.target(digits_files, 10.0), alpha=0.3)
    scaled.fit(detectors.calibration()).save("scaled.json")
    with pytest.raises(DetectorError, match="another --logit-scale"):
        flatguard.audit(run, detector="scaled.json")
    assert (run.path / DETECTION).read_bytes() == before
    (run.path / DETECTION).unlink()
    flatguard.audit(run)
    assert run.summary["detection"] is None


def edited(text: str, how: str) -> str:
    values = json.loads(text)
    if how == "another run's":
        values["adversarial_sha256"] = "0" * 64
    elif how == "a count":
        values["kinds"]["successful"]["flagged"] += 1
    elif how == "a threshold":
        values["thresholds"]["-1"]["upper"] = 0.0
    elif how == "newer":
        values["format_version"] = 2
    elif how == "unknown key":
        values["more"] = 1
    else:
        return "{"
    return json.dumps(values)


@pytest.mark.parametrize(
    "how", ["another run's", "a count", "a threshold", "newer", "unknown key", "no JSON"]
)
def test_a_strangers_file_is_refused_and_can_be_written_anew(
    run: Run, file: Path, how: str
) -> None:
    kept = run.path / DETECTION
    kept.write_text(edited(kept.read_text("utf-8"), how), "utf-8")
    for refuse in (flatguard.audit, write_report):
        with pytest.raises(RunFolderError, match=r"detection\.json is .*; delete it, or") as caught:
            refuse(load_run(run.path))
        assert "\n" not in str(caught.value)
    flatguard.audit(run.path, detector=file)
    write_report(load_run(run.path))


def test_shares_in_the_file_are_not_believed(run: Run) -> None:
    kept = run.path / DETECTION
    values = json.loads(kept.read_text("utf-8"))
    true = values["kinds"]["successful"]["share"]
    values["kinds"]["successful"] |= {"share": 1.0, "interval": [0.9, 1.0]}
    kept.write_text(json.dumps(values), "utf-8")
    assert found_in(run).kinds.successful.share == true


def test_calibration_images_are_recognised(digits_files: Path, run: Run) -> None:
    assert found_in(run).seen < 20
    assert not found_in(run).in_sample
    same = SharpnessDetector(detectors.target(digits_files), batch_size=7)
    same.fit(detectors.attacked()[0]).save("same.json")  # other batches: other rounding
    flatguard.audit(run, detector="same.json")
    found = found_in(run)
    assert found.seen == 200
    assert found.in_sample
    assert "tells nothing about new ones" in found.in_sample_warning


def test_a_score_on_a_threshold_is_not_flagged_though_a_run_rounds_it(digits_files: Path) -> None:
    """Thresholds are calibration scores in float64; the run has the same scores in float32."""
    run = detectors.evaluate(digits_files, "run", data=detectors.attacked())
    images = detectors.attacked()[0]
    for alpha in (0.1, 0.2, 0.3, 0.4):
        fitted = SharpnessDetector(detectors.target(digits_files), alpha=alpha).fit(images)
        fitted.save("same.json")
        flatguard.audit(run, detector="same.json")
        assert found_in(run).kinds.clean.flagged == int((fitted.predict(images) == -1).sum())


finite = st.floats(-50, 50)


@given(st.lists(finite, max_size=20), st.lists(finite, min_size=1, max_size=20))
def test_same_scores_are_counted_as_by_hand(clean: list[float], calibration: list[float]) -> None:
    by_hand = sum(
        any(abs(score - other) <= 1e-5 * max(1.0, abs(score)) for other in calibration)
        for score in clean
    )
    assert _seen(np.array(clean), np.array(calibration)) == by_hand


def test_kinds_without_samples_have_no_share() -> None:
    none = Flagged.of(np.zeros(0, dtype=bool), np.zeros(0))
    assert (none.share, none.interval, str(none)) == (None, (0.0, 1.0), "none")
