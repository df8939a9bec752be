"""What to do about a run that was interrupted, has no room, or is damaged."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from flatguard.environment.system import quoted
from flatguard.errors import FlatguardError, NoRoom, RunFolderError, no_room, one_line
from flatguard.execution.progress import ProgressReporter
from flatguard.request import EvaluationRequest
from flatguard.runs.layout import EVIDENCE
from flatguard.runs.storage import RunStorage


@contextmanager
def resume_advice(
    storage: RunStorage, request: EvaluationRequest, progress: ProgressReporter
) -> Iterator[None]:
    """Tell the command that resumes a run, where it is interrupted or the disk is full."""
    try:
        yield
    except NoRoom as error:
        error.args = (f"{error}; {_when_there_is_room(storage, request)}",)
        raise
    except FlatguardError:
        raise
    except Exception as error:
        why = no_room(error)
        if why is None:
            raise
        raise NoRoom(
            f"{why} ({one_line(error)}); {_when_there_is_room(storage, request)}"
        ) from error
    except KeyboardInterrupt:
        if storage.path.is_dir():
            progress.log(f"flatguard resume {quoted(storage)}{request.consent} goes on")
        raise


@contextmanager
def repair_advice() -> Iterator[None]:
    """Say what to do about a block or a check's evidence that is damaged."""
    try:
        yield
    except RunFolderError as error:
        raise RunFolderError(
            f"{error}; remove the folder that it is in, and resume the run again: that part is "
            "then made anew"
        ) from error


def _when_there_is_room(storage: RunStorage, request: EvaluationRequest) -> str:
    if not (storage.path / EVIDENCE).is_dir():
        return "make room, or name another folder with --out"
    again = f"flatguard resume {quoted(storage)}{request.consent}"
    return f"make room, then go on with {again}"
