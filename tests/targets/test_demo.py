"""The demo model: installed weights that classify real images."""

import importlib.resources
from pathlib import Path

import pytest

from flatguard.data.dataset import Batch
from flatguard.errors import EnvironmentProblem
from flatguard.targets import Target, demo


def test_it_classifies_real_images(demo: Target, demo_batch: Batch) -> None:
    predicted = demo.model(demo_batch.images).argmax(1)
    assert (predicted == demo_batch.labels).float().mean() >= 0.9
    assert demo.head is not None
    assert not demo.model.training


def test_its_defaults_make_a_whole_evaluation() -> None:
    target = demo.load()
    assert (target.defaults.dataset, target.defaults.norm, target.defaults.eps) == (
        "demo", "Linf", "8/255",
    )  # fmt: skip
    assert target.notes == ()


def test_weights_that_are_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.resources, "files", lambda package: tmp_path)
    with pytest.raises(EnvironmentProblem, match="example weights are missing; repair them with"):
        demo.load()
