"""The Detection section: counts, figure, the limits of a detector, and runs without one."""

import json
import re
import shutil
from pathlib import Path

import pytest
from support import detectors
from support.reports import HOSTILE

import flatguard
from flatguard.detection import SharpnessDetector
from flatguard.detection.detector_file import CalibrationFacts
from flatguard.detection.flagging import load_detection
from flatguard.reporting.report import report_files, write_report
from flatguard.runs.run import Run, load_run

NUMBER = (
    "fools the model on 99.5% of 200 images and evades it on 97.0% (95% interval 93.6% to 98.9%), "
    "within Linf 8/255."
)


@pytest.fixture(scope="module")
def plain(digits_files: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return detectors.evaluate(digits_files, tmp_path_factory.mktemp("plain") / "run")


@pytest.fixture
def bare(plain: Run, tmp_path: Path) -> Run:
    """A run without a detector."""
    shutil.copytree(plain.path, tmp_path / "run")
    return load_run(tmp_path / "run")


def flagged(run: Run, fitted: SharpnessDetector, **facts: object) -> str:
    """The page of a run that a detector flagged."""
    fitted.save("d.json", **facts)
    flatguard.audit(run, detector="d.json")
    return report_files(run).html.read_text("utf-8")


def section(page: str) -> str:
    found = re.search(r'<section id="detection">.*?</section>', page, flags=re.DOTALL)
    assert found is not None
    return found[0]


def words(html: str) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", html).split())


def test_without_a_detector_the_command_is_named(bare: Run) -> None:
    page = report_files(bare).html.read_text("utf-8")
    assert '<section id="detection">' not in page
    assert "<code>flatguard audit RUN --detector FILE</code>" in page
    assert "no detector was given for this run" in page
    document = json.loads(report_files(bare).json.read_text("utf-8"))
    (text,) = (s for s in document["sections"] if s["name"] == "detection")
    assert (text["measured"], text["data"]) == (False, {})


def test_counts_thresholds_and_the_number_against_it(bare: Run, digits_files: Path) -> None:
    fitted = detectors.detector(digits_files, alpha=0.3)
    page = flagged(bare, fitted, adaptive=detectors.ADAPTIVE)
    shown, found = section(page), load_detection(bare)
    assert found is not None
    text = words(shown)
    assert (
        f"A detector is a diagnostic, not a defence. An attacker who knows the detector {NUMBER}"
        in text
    )
    for kind in (found.kinds.clean, found.kinds.clean_wrong, found.kinds.successful):
        low, high = kind.interval
        row = f"{kind.samples} {kind.flagged} {kind.share:.1%} {low:.1%} to {high:.1%} 0"
        assert row in text
    assert shown.count('class="rule"') == 2
    assert "lower threshold" in shown
    assert "no detector was given" not in page
    assert "30.0% of clean images flagged (false positives); low and high scores are" in text
    document = json.loads(report_files(bare).json.read_text("utf-8"))
    (data,) = (s["data"] for s in document["sections"] if s["name"] == "detection")
    assert data == bare.summary["detection"]
    assert data["adaptive"]["evaded"] == 194


def test_what_was_not_measured_is_named_with_its_command(bare: Run, digits_files: Path) -> None:
    text = words(section(flagged(bare, detectors.detector(digits_files))))
    assert "not a defence. How often an attacker who knows" in text
    assert "was not measured: flatguard detect fit ... --adaptive N." in text
    assert "tells nothing about new ones" not in text
    same = SharpnessDetector(detectors.target(digits_files)).fit(detectors.attacked()[0])
    text = words(section(flagged(bare, same)))
    assert "200 of 200 clean images have the score of a calibration image, so they are" in text
    assert "tells nothing about new ones." in text


def test_per_class_the_distance_is_drawn(bare: Run, digits_files: Path) -> None:
    shown = section(flagged(bare, detectors.detector(digits_files, alpha=0.3, per_class=True)))
    assert shown.count('class="rule"') == 1
    assert "log κ inside its thresholds" in shown
    assert "thresholds for each predicted class" in shown


def test_it_is_drawn_again_and_moves_with_the_run(
    bare: Run, digits_files: Path, tmp_path: Path
) -> None:
    page = flagged(bare, detectors.detector(digits_files))
    (tmp_path / "d.json").unlink()
    (tmp_path / "elsewhere").mkdir()
    moved = shutil.move(bare.path, tmp_path / "elsewhere" / "run")
    assert write_report(load_run(moved)).html.read_text("utf-8") == page


def test_hostile_names_in_a_detector_are_text(bare: Run, digits_files: Path) -> None:
    fitted = detectors.detector(digits_files)
    facts = CalibrationFacts(name=HOSTILE.data, sha256="0" * 64, samples=1, seed=0)
    adaptive = detectors.ADAPTIVE.model_copy(update={"norm": HOSTILE.model})
    shown = section(flagged(bare, fitted, data=facts, adaptive=adaptive))
    assert "<script" not in shown
    assert "<img" not in shown
    assert "&lt;img src=x onerror=" in shown
    assert not re.search("[\u202a-\u202e\u0007]", shown)
