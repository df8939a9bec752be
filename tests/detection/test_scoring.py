"""A saved detector on images."""

from pathlib import Path

import numpy as np
import pytest
import torch
from support import digits_target

from flatguard.data.arrays import ArrayDataset
from flatguard.detection import SharpnessDetector
from flatguard.detection.scoring import score_images
from flatguard.errors import DetectorError
from flatguard.execution.context import ModelAndData
from flatguard.execution.progress import Silent
from flatguard.request import make_request
from flatguard.targets import Target


def subject(target: Target) -> ModelAndData:
    data = ArrayDataset(digits_target.images(50, 300), digits_target.labels(50, 300), "digits")
    request = make_request(
        model="digits", attack="torchattacks:PGD", eps="0.1", n_examples=50, batch_size=16
    )
    return ModelAndData(request, target, data, torch.device("cpu"))


def test_every_image_has_a_row(digits_net: Target, tmp_path: Path) -> None:
    fitted = SharpnessDetector(digits_net, alpha=0.3).fit(digits_target.images(300))
    fitted.save(tmp_path / "d.json")
    table = score_images(subject(digits_net), tmp_path / "d.json", Silent())
    assert list(table) == ["sample", "label", "predicted", "log_kappa", "flagged"]
    assert table["sample"].tolist() == list(range(50))
    assert table["label"].tolist() == digits_target.labels(50, 300).tolist()
    expected = fitted.predict(digits_target.images(50, 300)) == -1
    np.testing.assert_array_equal(table["flagged"], expected)
    assert 0 < expected.sum() < 50


def test_no_detector_is_an_error(digits_net: Target, tmp_path: Path) -> None:
    with pytest.raises(DetectorError, match="cannot read"):
        score_images(subject(digits_net), tmp_path / "none.json", Silent())
