"""MLflow's own SQLite store: logged by a run, read back by MLflow's client."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import flatguard
from flatguard.checks.verdict import verdict_of
from flatguard.errors import TrackerError
from flatguard.runs.run import Run

mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed: see make test-beside")

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow takes 15 seconds to make one."""
    file = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    mlflow.MlflowClient(tracking_uri=f"sqlite:///{file}").search_experiments()
    return file


@pytest.fixture(autouse=True)
def store(empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = mlflow.get_tracking_uri()
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    mlflow.set_tracking_uri(f"sqlite:///{shutil.copy(empty_store, tmp_path)}")
    mlflow.set_experiment("robustness")
    yield
    while mlflow.active_run() is not None:
        mlflow.end_run()
    mlflow.set_tracking_uri(before)


def only_run() -> mlflow.entities.Run:
    (found,) = mlflow.search_runs(output_format="list", search_all_experiments=True)
    return found


def test_an_evaluation_is_a_run_of_its_own(attacked: Callable[..., Run], tmp_path: Path) -> None:
    run = attacked(log_to="mlflow")
    verdict, found = verdict_of(run), only_run()
    assert mlflow.active_run() is None
    assert (found.info.status, found.info.run_name) == ("FINISHED", "run")
    metrics, tags, params = found.data.metrics, found.data.tags, found.data.params
    assert metrics["flatguard/robust_accuracy"] == verdict.robust_accuracy
    assert metrics["flatguard/corrected_robust_accuracy_low"] == verdict.corrected_interval[0]
    assert metrics["flatguard/clean_accuracy"] == run.summary["clean_accuracy"]
    assert metrics["flatguard/sample_forwards"] == run.summary["sample_forwards"]
    assert not any("logit_sharpness" in name for name in metrics)
    assert tags["flatguard/verdict"] == verdict.verdict
    assert tags["flatguard/sentence"] == verdict.sentence
    assert tags["flatguard/check/black-box"] == "not-run"
    assert "flatguard/measured/black-box" not in metrics
    assert params["flatguard/attack"] == "foolbox:LinfPGD"
    assert params["flatguard/attack_args.steps"] == "3"
    assert params["flatguard/eps"] == "8/255"
    client = mlflow.MlflowClient()
    names = {Path(file.path).name for file in client.list_artifacts(found.info.run_id, "flatguard")}
    assert {"report.html", "report.json", "report.md", "verdict.json"} <= names
    copied = client.download_artifacts(found.info.run_id, "flatguard/report.json", str(tmp_path))
    assert json.loads(Path(copied).read_text())["judgement"]["verdict"] == verdict.verdict


def test_an_active_run_is_taken_and_stays_active(
    attacked: Callable[..., Run], run: Run, other: Run
) -> None:
    with mlflow.start_run() as mine:
        mlflow.log_metric("clean_accuracy", 0.25)
        mlflow.log_param("attack", "mine")
        flatguard.log_run(run, to="mlflow")
        flatguard.log_run(other, "mlflow")
        flatguard.audit(run, tolerance=0.5, log_to="mlflow")
        assert mlflow.active_run().info.run_id == mine.info.run_id
    data = only_run().data
    assert (data.metrics["clean_accuracy"], data.params["attack"]) == (0.25, "mine")
    assert data.metrics["flatguard/robust_accuracy"] == run.summary["robust_accuracy"]
    (second,) = {
        name.split("/")[1] for name in data.metrics if name.startswith("flatguard/second-")
    }
    assert data.metrics[f"flatguard/{second}/robust_accuracy"] == other.summary["robust_accuracy"]
    assert data.tags[f"flatguard/{second}/verdict"] == verdict_of(other).verdict


def test_the_run_of_the_environment_is_taken(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    client = mlflow.MlflowClient()
    experiment = mlflow.get_experiment_by_name("robustness")
    mine = client.create_run(experiment.experiment_id)
    monkeypatch.setenv("MLFLOW_RUN_ID", mine.info.run_id)
    flatguard.log_run(run, "mlflow")
    found = only_run()
    assert (found.info.run_id, found.info.status) == (mine.info.run_id, "RUNNING")
    assert "flatguard/robust_accuracy" in found.data.metrics


def test_the_environment_is_left_as_it_was(run: Run) -> None:
    before = dict(os.environ)
    flatguard.log_run(run, "mlflow")
    assert dict(os.environ) == before


@pytest.mark.parametrize("answers", ["never", "refuses"])
def test_a_server_that_does_not_answer(
    answers: str,
    silent_server: str,
    attacked: Callable[..., Run],
    told: Callable[[], list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    mlflow.set_tracking_uri(silent_server if answers == "never" else "http://127.0.0.1:9")
    run = attacked(log_to="mlflow")
    (line,) = told()
    assert line.startswith("the run was not logged: mlflow: ")
    assert line.endswith("it is kept, log it with flatguard audit run --log-to mlflow")
    assert run.summary["verdict"] == verdict_of(run).verdict
    with pytest.raises(TrackerError, match=r"^mlflow: "):
        flatguard.log_run(run, "mlflow")


def test_the_network_stays_forbidden(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    mlflow.set_tracking_uri("http://192.0.2.1:5000")
    with pytest.raises(TrackerError, match="FLATGUARD_OFFLINE forbids the network"):
        flatguard.log_run(run, "mlflow")
