"""Weights & Biases: the request in the config, numbers in the summary, the report as an artifact.

The active run is taken (`wandb.run`), and no step is added to its history. Else a new one is made
as wandb's own settings say (`WANDB_PROJECT`, `WANDB_MODE`, ...), and finished.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from flatguard.environment.offline import FORBIDDEN, is_offline
from flatguard.environment.requirements import needed
from flatguard.errors import TrackerError
from flatguard.integrations.logged_run import PREFIX, LoggedRun, text_of

_SETTINGS = {
    "init_timeout": 30.0,
    "login_timeout": 30.0,
    "finish_timeout": 60.0,
    "finish_timeout_raises": True,
    "silent": True,
    "console": "off",
}
"""Of a run of our own: wandb's defaults wait for its server without end."""
_LONGEST_TAG = 64


def log(logged: LoggedRun) -> str:
    """Log a run; where wandb shows or keeps it."""
    with needed("wandb", "wandb", "--log-to wandb"):
        import wandb
    with _run(wandb, logged.name) as run:
        prefix = logged.prefix_beside(run.summary.get(f"{PREFIX}/run"))
        run.config.update({prefix: dict(logged.parameters)}, allow_val_change=True)
        values = {**logged.tags, **logged.metrics, "run": logged.key}
        run.summary.update({f"{prefix}/{n}": v for n, v in values.items()})
        run.tags = _with_verdict(run.tags or (), prefix, logged.tags["verdict"])
        artifact = wandb.Artifact(_artifact_name(logged.name), type="report")
        for file in logged.files:
            artifact.add_file(str(file), name=file.name)
        run.log_artifact(artifact)
        return f"run {run.id} in {run.dir}" if run.offline else str(run.url)


def _artifact_name(run: str) -> str:
    """wandb takes 128 letters, digits, dots, dashes and underscores."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", f"{PREFIX}-{run}")[:128]


def _with_verdict(tags: Any, prefix: str, verdict: str) -> tuple[str, ...]:
    """A run's tags with this verdict in place of an earlier one."""
    others = [tag for tag in tags if not tag.startswith(f"{prefix}:")]
    return (*others, text_of(f"{prefix}:{verdict}", _LONGEST_TAG))


@contextmanager
def _run(wandb: Any, name: str) -> Iterator[Any]:
    """The active run, or a new one that is finished afterwards."""
    if wandb.run is not None:
        if is_offline() and not wandb.run.offline:
            raise TrackerError(f"{FORBIDDEN}, and wandb's active run is online")
        yield _enabled(wandb.run)
        return
    known = {
        name: value
        for name, value in _SETTINGS.items()
        if name in wandb.Settings.model_fields and f"WANDB_{name.upper()}" not in os.environ
    }
    mode = "offline" if is_offline() else None
    project = os.environ.get("WANDB_PROJECT", PREFIX)
    with wandb.init(
        project=project, name=name, mode=mode, settings=wandb.Settings(**known)
    ) as made:
        yield _enabled(made)


def _enabled(run: Any) -> Any:
    if getattr(run, "disabled", False):
        raise TrackerError("wandb is switched off here (WANDB_MODE, WANDB_DISABLED)")
    return run
