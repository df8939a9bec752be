"""A saturated model is masked by saturation, with and without a head that can be proven."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from support.zero_shot import Kind, ZeroShot, held_out

import flatguard
from flatguard.checks.basins import basins_of
from flatguard.checks.verdict import verdict_of
from flatguard.cli.answer import show
from flatguard.detection import SharpnessDetector
from flatguard.detection.detector_file import SavedDetector
from flatguard.detection.flagging import load_detection
from flatguard.errors import DetectorError
from flatguard.geometry.measures import KAPPA, LOGIT_SHARPNESS
from flatguard.runs.run import Run, load_run
from flatguard.targets import make_target, prepare

COUNT, SATURATED = 60, 3000.0


def evaluated(kind: Kind, out: Path, **options: object) -> Run:
    return flatguard.evaluate(
        ZeroShot(kind, SATURATED), "torchattacks:PGD", data=held_out(COUNT), out=out, eps=0.12,
        norm="Linf", attack_args={"steps": 10, "random_start": False}, **options,
    )  # fmt: skip


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return evaluated("text", tmp_path_factory.mktemp("text") / "run")


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = prepare(make_target(ZeroShot("distance", SATURATED), "d", "here"), held_out(8)[0])
    file = tmp_path_factory.mktemp("detector") / "d.json"
    SharpnessDetector(target, alpha=0.1).fit(held_out(300)[0]).save(file)
    return file


@pytest.fixture(scope="module")
def distance(detector: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return evaluated("distance", tmp_path_factory.mktemp("distance") / "run", detector=detector)


def test_a_zero_shot_model_is_masked_by_saturation(text: Run) -> None:
    assert text.manifest.target.head == "matmul in the model"
    assert text.sharpness is KAPPA
    assert text.summary["sentence"].startswith("masked by saturation")
    assert text.samples["clean_log_kappa"].notna().all()
    assert "log_logit_sharpness" not in text.trajectory
    assert text.summary["median_log_logit_sharpness_clean"] is None


def test_so_is_a_model_whose_head_cannot_be_proven(distance: Run) -> None:
    assert distance.manifest.target.head is None
    assert distance.sharpness is LOGIT_SHARPNESS
    assert distance.summary["sentence"].startswith("masked by saturation")
    assert distance.summary["median_log_kappa_clean"] is None
    assert distance.summary["median_log_logit_sharpness_clean"] < -50
    assert distance.samples["clean_log_kappa"].isna().all()
    assert np.isfinite(distance.samples["clean_log_logit_sharpness"]).all()
    assert np.isfinite(distance.trajectory["log_logit_sharpness"]).all()


def test_the_mechanism_names_logit_sharpness(distance: Run) -> None:
    discrepancy = verdict_of(distance).explanations[0]
    assert discrepancy.mechanism == "saturation"
    assert "the median log logit sharpness of clean images is -" in discrepancy.condition


def test_the_report_never_calls_it_kappa(distance: Run) -> None:
    page = (distance.path / "report.html").read_text("utf-8")
    body = re.sub(r"<script.*?</script>|<style.*?</style>", "", page, flags=re.DOTALL)
    body = re.sub(r'<details id="terms".*?</details>', "", body, flags=re.DOTALL)
    named = [body[max(m.start() - 1, 0) : m.end() + 40] for m in re.finditer("κ", body)]
    assert all(words.startswith((">κ was not measured", " κ is not measured")) for words in named)
    assert "Logit sharpness is shown in its place" in body
    for caption in ("log logit sharpness along the attack", "A threshold on logit sharpness"):
        assert caption in body


def test_the_terminal_names_it(distance: Run, capsys: pytest.CaptureFixture[str]) -> None:
    show(distance, verdict_of(distance))
    shown = capsys.readouterr().out
    assert "median log logit sharpness" in shown
    assert "κ" not in shown


def test_basins_take_it(distance: Run) -> None:
    found = basins_of(distance)
    assert found.measure is LOGIT_SHARPNESS
    assert np.isfinite(found.table["log_logit_sharpness"]).all()


def test_a_detector_takes_it(distance: Run, text: Run, detector: Path) -> None:
    saved = SavedDetector.open(detector)
    assert saved.head is None
    assert saved.measure is LOGIT_SHARPNESS
    found = load_detection(load_run(distance.path))
    assert found is not None
    assert found.kinds.clean.unmeasured == 0
    assert found.kinds.clean.samples == COUNT
    with pytest.raises(DetectorError):
        saved.check_run(text.manifest.target)
