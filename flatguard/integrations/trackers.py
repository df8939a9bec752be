"""Logs runs to experiment trackers, each by its own library.

A run is whole without its trackers: an evaluation that cannot log its result reports that in one
line, and its folder, verdict and exit code stay as they are.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from flatguard.environment.offline import keep_offline, last_refusal, refusals
from flatguard.environment.requirements import needed
from flatguard.environment.system import quoted
from flatguard.errors import FlatguardError, TrackerError, one_line
from flatguard.execution.progress import ProgressReporter
from flatguard.integrations import mlflow_tracker, tensorboard_tracker, wandb_tracker
from flatguard.integrations.logged_run import LoggedRun
from flatguard.request import make_request
from flatguard.runs.run import Run, load_run

_TRACKERS: dict[str, Callable[[LoggedRun], str]] = {
    "mlflow": mlflow_tracker.log,
    "wandb": wandb_tracker.log,
    "tensorboard": tensorboard_tracker.log,
}
"""Each logs a run and returns where it is; it imports its library when it is called."""
_LOGGER = logging.getLogger("flatguard")


def log_run(run: Run | str | Path, to: str | Sequence[str]) -> tuple[str, ...]:
    """Log a judged run to experiment trackers: into their active run if there is one.

    Parameters are the resolved request; metrics are clean, reported and corrected accuracy with
    the ends of their intervals, and costs; tags are the verdict and the status of each check; the
    report is an artifact. All names begin with `flatguard/`. What was not measured is not logged.

    Args:
        run: the run, or its folder.
        to: `mlflow`, `wandb` or `tensorboard`, or several of them.

    Returns:
        For each tracker, where it has the run.

    Raises:
        UsageError: there is no such tracker.
        EnvironmentProblem: its library is not installed.
        TrackerError: it does not answer, or refuses the run.
        RunFolderError: the run is damaged, or has no verdict yet.

    Example:
        >>> with mlflow.start_run():  # doctest: +SKIP
        ...     run = flatguard.evaluate(model, "apgd-ce", data=data, eps="8/255")
        ...     flatguard.log_run(run, to="mlflow")
    """
    names = tracker_names(to)
    check_installed(names)
    keep_offline()
    run = run if isinstance(run, Run) else load_run(run)
    logged = LoggedRun.of(run)
    return tuple(_log(name, logged) for name in names)


def tracker_names(to: str | Sequence[str]) -> tuple[str, ...]:
    """The names, each once.

    Raises:
        UsageError: there is no such tracker.
    """
    return make_request(model="", attack="", log_to=to).log_to


def check_installed(names: Sequence[str]) -> None:
    """Refuse a tracker whose library is not installed, without the cost of its import.

    Raises:
        EnvironmentProblem: names the command that installs it.
    """
    for name in names:
        with needed(name, name, f"--log-to {name}"):
            found = importlib.util.find_spec(name)
            # wandb's own folder of runs looks like a package without an origin.
            if found is None or found.origin is None:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def log_result(run: Run, names: Sequence[str], progress: ProgressReporter) -> None:
    """Log a run that was just judged; a tracker that fails costs one line and nothing else."""
    for name in names:
        try:
            (place,) = log_run(run, name)
        except Exception as error:
            _LOGGER.warning(
                "the run was not logged: %s; it is kept, log it with flatguard audit %s --log-to "
                "%s",
                error if isinstance(error, FlatguardError) else one_line(error),
                quoted(run.storage),
                name,
            )
        else:
            progress.log(f"logged to {name}: {place}")


def _log(name: str, logged: LoggedRun) -> str:
    before = refusals()
    try:
        return _TRACKERS[name](logged)
    except TrackerError as error:
        raise TrackerError(f"{name}: {error}") from error
    except FlatguardError:
        raise
    except Exception as error:  # each library, and each of its stores, raises its own
        why = last_refusal() if refusals() > before else ""
        raise TrackerError(f"{name}: {one_line(error)}{why}") from error
