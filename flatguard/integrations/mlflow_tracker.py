"""MLflow 3: parameters, metrics and tags of a run, and the report under its artifacts.

The active run is taken (`mlflow.active_run()`, or `MLFLOW_RUN_ID`), else a new one is made in the
experiment and at the address that MLflow's own settings name.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import TYPE_CHECKING, Any

from flatguard.environment.requirements import needed
from flatguard.integrations.logged_run import LoggedRun, text_of

if TYPE_CHECKING:
    from mlflow import MlflowClient

_SETTINGS = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
"""MLflow's own defaults wait 16 minutes for a server that does not answer."""
_BATCH = 100
"""So many parameters or tags MLflow takes at once."""


def log(logged: LoggedRun) -> str:
    """Log a run; the run of MLflow, and where it is."""
    with _settings(), needed("mlflow", "mlflow", "--log-to mlflow"):
        import mlflow
    # MLflow prints the address of a run that it ends.
    with _settings(), redirect_stdout(sys.stderr), _run(mlflow, logged.name) as run_id:
        client = mlflow.MlflowClient()
        found = client.get_run(run_id)
        prefix = logged.prefix_beside(found.data.tags.get("flatguard/run"))
        _log_values(client, run_id, prefix, logged)
        for file in logged.files:
            client.log_artifact(run_id, str(file), artifact_path=prefix)
        return f"run {run_id} at {mlflow.get_tracking_uri()}"


@contextmanager
def _run(mlflow: Any, name: str) -> Iterator[str]:
    """The id of the active run, or of a new one that is ended afterwards."""
    active = mlflow.active_run()
    known = active.info.run_id if active is not None else os.environ.get("MLFLOW_RUN_ID")
    if known:
        yield known
        return
    with mlflow.start_run(run_name=name) as made:
        yield made.info.run_id


def _log_values(client: MlflowClient, run_id: str, prefix: str, logged: LoggedRun) -> None:
    from mlflow.entities import Metric, Param, RunTag

    now = int(time.time() * 1000)
    metrics = [Metric(f"{prefix}/{n}", value, now, 0) for n, value in logged.metrics.items()]
    tags = [RunTag(f"{prefix}/{n}", text_of(value)) for n, value in logged.tags.items()]
    params = [Param(f"{prefix}/{n}", text_of(value)) for n, value in logged.parameters.items()]
    client.log_batch(run_id, metrics=metrics)
    for some in _batches(params):
        client.log_batch(run_id, params=some)
    for some in _batches([*tags, RunTag(f"{prefix}/run", logged.key)]):
        client.log_batch(run_id, tags=some)


def _batches(values: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for start in range(0, len(values), _BATCH):
        yield values[start : start + _BATCH]


@contextmanager
def _settings() -> Iterator[None]:
    """MLflow with `_SETTINGS`, where the user has set nothing else."""
    added = [name for name in _SETTINGS if name not in os.environ]
    os.environ.update({name: _SETTINGS[name] for name in added})
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)
