"""A detector for the digits, and its file."""

from pathlib import Path

import pytest
from support import detectors

from flatguard.detection import SharpnessDetector


@pytest.fixture(scope="module")
def fitted(digits_files: Path) -> SharpnessDetector:
    return detectors.detector(digits_files, alpha=0.3, side="high")


@pytest.fixture(scope="module")
def file(fitted: SharpnessDetector, tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("detectors") / "d.json"
    fitted.save(found, adaptive=detectors.ADAPTIVE)
    return found
