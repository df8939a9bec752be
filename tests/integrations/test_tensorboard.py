"""TensorBoard's event file, read back by its own EventAccumulator."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import flatguard
from flatguard.checks.verdict import verdict_of
from flatguard.runs.run import Run

accumulating = pytest.importorskip(
    "tensorboard.backend.event_processing.event_accumulator",
    reason="tensorboard is not installed: see make test-beside",
)


def read_back(run: Run) -> Any:
    found = accumulating.EventAccumulator(str(run.path / "tensorboard"))
    found.Reload()
    return found


def text(events: Any, name: str) -> str:
    (event,) = events.Tensors(f"flatguard/{name}/text_summary")
    return str(event.tensor_proto.string_val[0].decode())


def test_an_evaluation_has_an_event_file(attacked: Callable[..., Run]) -> None:
    run = attacked(log_to="tensorboard")
    verdict, events = verdict_of(run), read_back(run)
    scalars = {tag: events.Scalars(tag)[-1].value for tag in events.Tags()["scalars"]}
    close = pytest.approx(verdict.robust_accuracy, abs=1e-6)
    assert scalars["flatguard/robust_accuracy"] == close
    low = pytest.approx(verdict.corrected_interval[0], abs=1e-6)
    assert scalars["flatguard/corrected_robust_accuracy_low"] == low
    assert scalars["flatguard/sample_forwards"] == run.summary["sample_forwards"]
    assert "flatguard/measured/black-box" not in scalars
    assert text(events, "verdict") == verdict.verdict
    assert text(events, "sentence") == verdict.sentence
    assert "| corrected (upper bound) |" in text(events, "report")


def test_the_request_is_in_the_hparams(attacked: Callable[..., Run]) -> None:
    from tensorboard.plugins.hparams import plugin_data_pb2

    events = read_back(attacked(log_to="tensorboard"))
    content = events.PluginTagToContent("hparams")["_hparams_/session_start_info"]
    hparams = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info.hparams
    assert hparams["flatguard/attack"].string_value == "foolbox:LinfPGD"
    assert hparams["flatguard/attack_args.steps"].number_value == 3


def test_it_is_logged_again_in_place_of_before(run: Run) -> None:
    (place,) = flatguard.log_run(run, "tensorboard")
    assert Path(place) == run.path / "tensorboard"
    flatguard.log_run(run, "tensorboard")
    assert len(read_back(run).Scalars("flatguard/robust_accuracy")) == 1
    assert flatguard.audit(run).verdict == verdict_of(run).verdict
