"""wandb offline: logged by a run, read back as wandb's own messages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support import wandb_files

import flatguard
from flatguard.checks.verdict import verdict_of
from flatguard.errors import TrackerError
from flatguard.runs.run import Run

wandb = pytest.importorskip("wandb", reason="wandb is not installed: see make test-beside")


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    yield
    wandb.teardown()  # it reads the environment and the folder once a process


def read_back() -> wandb_files.Offline:
    wandb.teardown()  # its own process writes the last records before it ends
    (file,) = Path("wandb").glob("offline-run-*/*.wandb")
    return wandb_files.read(file)


def test_an_evaluation_is_a_run_of_its_own(attacked: Callable[..., Run]) -> None:
    run = attacked(log_to="wandb")
    assert wandb.run is None
    found, verdict = read_back(), verdict_of(run)
    assert (found.name, found.exits, found.history) == ("run", 1, 0)
    parameters = found.config["flatguard"]
    assert (parameters["attack"], parameters["attack_args.steps"]) == ("foolbox:LinfPGD", 3)
    assert "head" not in parameters
    summary = found.summary
    assert summary["flatguard/robust_accuracy"] == verdict.robust_accuracy
    assert summary["flatguard/corrected_robust_accuracy_high"] == verdict.corrected_interval[1]
    assert summary["flatguard/sample_forwards"] == run.summary["sample_forwards"]
    assert summary["flatguard/verdict"] == verdict.verdict
    assert summary["flatguard/check/black-box"] == "not-run"
    assert "flatguard/measured/black-box" not in summary
    assert found.tags == [f"flatguard:{verdict.verdict}"]
    assert {"report.html", "report.json"} <= set(found.artifacts["flatguard-run"])


def test_an_active_run_is_taken_and_stays_active(run: Run, other: Run) -> None:
    with wandb.init(project="mine", mode="offline", tags=["mine"], config={"attack": 1}) as mine:
        mine.log({"accuracy": 0.25})
        flatguard.log_run(run, "wandb")
        flatguard.log_run(other, to=["wandb"])
        flatguard.audit(run, tolerance=0.5, log_to="wandb")
        assert wandb.run is mine
        assert mine.step == 1
    found = read_back()
    assert (found.exits, found.history, found.config["attack"]) == (1, 1, 1)
    assert found.summary["flatguard/robust_accuracy"] == run.summary["robust_accuracy"]
    (second,) = {n for n in found.config if n.startswith("flatguard/second-")}
    assert found.summary[f"{second}/robust_accuracy"] == other.summary["robust_accuracy"]
    word = flatguard.audit(run).verdict
    assert found.tags[0] == "mine"
    assert [tag for tag in found.tags if tag.startswith("flatguard:")] == [f"flatguard:{word}"]


def test_wandb_that_is_switched_off_is_no_success(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLATGUARD_OFFLINE", "0")
    monkeypatch.setenv("WANDB_MODE", "disabled")
    with pytest.raises(TrackerError, match=r"^wandb: wandb is switched off here"):
        flatguard.log_run(run, "wandb")


def test_a_server_that_does_not_answer(
    silent_server: str,
    attacked: Callable[..., Run],
    told: Callable[[], list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FLATGUARD_OFFLINE", "0")
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_BASE_URL", silent_server)
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_INIT_TIMEOUT", "3")
    run = attacked(log_to="wandb")
    (line,) = told()
    assert line.startswith("the run was not logged: wandb: ")
    assert line.endswith("it is kept, log it with flatguard audit run --log-to wandb")
    assert run.summary["verdict"] == verdict_of(run).verdict
