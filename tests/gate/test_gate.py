"""The gate with a detector: kept runs are judged again."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import detectors

from flatguard.checks.registry import check_names
from flatguard.detection import SharpnessDetector
from flatguard.errors import DetectorError, UsageError
from flatguard.gate.cache import RunCache
from flatguard.gate.config import config_of
from flatguard.gate.gate import Judged, pass_through

Gate = Callable[..., Judged]


@pytest.fixture
def gate(digits_files: Path, tmp_path: Path) -> Gate:
    cache = RunCache(tmp_path / "cache", "one session")

    def through(thresholds: dict[str, Any], **keys: Any) -> Judged:
        asked = {
            "model": str(digits_files / "digits.safetensors"), "arch": detectors.ARCH,
            "dataset": str(digits_files / "digits.npz"), "attack": "torchattacks:PGD",
            "attack_args": detectors.PGD, "eps": 0.1, "checks": "none",
            "gate": {"allow": ["inconclusive", *check_names()], **thresholds},
        }  # fmt: skip
        return pass_through(config_of(asked | keys), cache)

    return through


def test_a_kept_run_is_flagged_anew_by_another_detector(
    gate: Gate, file: Path, digits_files: Path
) -> None:
    first = gate({"min_detected": 0.3, "max_false_positives": 0.5}, detector=file)
    assert (first.cached, first.shut) == (False, ())
    detectors.detector(digits_files, alpha=0.05).save("other.json")
    second = gate({"min_detected": 0.3, "max_false_positives": 0.5}, detector="other.json")
    assert second.cached
    assert [outcome.label for outcome in second.shut] == ["threshold[min_detected]"]
    assert gate({"min_detected": 0.3}, detector=file).shut == ()


def test_a_wrong_detector_is_no_error_of_the_runs(
    gate: Gate, file: Path, digits_files: Path
) -> None:
    """The next in the session attacks, and does not get the error of another one's detector."""
    scaled = SharpnessDetector(detectors.target(digits_files, 10.0)).fit(detectors.calibration())
    scaled.save("scaled.json")
    for detector in ("scaled.json", "nowhere.json"):
        with pytest.raises(DetectorError):
            gate({"min_detected": 0.3}, detector=detector)
    assert not gate({"min_detected": 0.3}, detector=file).cached


@pytest.mark.parametrize("name", ["min_detected", "max_false_positives"])
def test_thresholds_for_a_detector_need_one(gate: Gate, name: str) -> None:
    with pytest.raises(UsageError, match=rf"gate\.{name} needs a detector: add a key `detector`"):
        gate({name: 0.5})
