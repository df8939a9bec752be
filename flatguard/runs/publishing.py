"""Publishes a folder of the evidence atomically: a block, a check's evidence or a failure.

A folder is staged in `RUN/.staging/NAME.HOST.PID`, gets the checksums of its files and a seal, is
made durable, and is renamed. So it is there completely or not at all. If two processes publish the
same folder, the first one counts and the second changes nothing.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pydantic import BaseModel

from flatguard.environment.system import replace, sync
from flatguard.errors import FlatguardError, NoRoom, RunFolderError, no_room
from flatguard.runs.checksums import checksums
from flatguard.runs.facts import Timing
from flatguard.runs.json_files import write_sealed
from flatguard.runs.layout import STAGING, TIMING
from flatguard.runs.owners import ending
from flatguard.runs.untrusted import is_plain_folder


def stage(run: Path, name: str) -> Path:
    """The folder that this process fills before it is published under a name; not made yet.

    Raises:
        RunFolderError: the staging folder is a link, which could lead out of the run folder.
    """
    is_plain_folder(run / STAGING)
    return run / STAGING / f"{name}{ending()}"


def unstage(folder: Path) -> None:
    """Remove a staged folder that was not published."""
    shutil.rmtree(folder, ignore_errors=True)
    drop_if_empty(folder.parent)


def complete(
    folder: Path, file: str, facts: BaseModel, seconds: dict[str, float] | None = None
) -> str:
    """Write the last files of a staged folder: its facts with all checksums, and its timing.

    Args:
        folder: is staged, and has its tables and images.
        file: name of the facts' file.
        facts: a model with a field `files`.
        seconds: by stage; None writes no timing.

    Returns:
        The seal of the facts.
    """
    seal = write_sealed(folder / file, facts.model_copy(update={"files": checksums(folder)}))
    if seconds is not None:
        write_sealed(folder / TIMING, Timing(seconds=seconds))
    return seal


def publish(folder: Path, final: Path, *, replaces: bool = False) -> None:
    """Rename a staged folder after its bytes are on the disk.

    Args:
        folder: is staged and complete.
        final: the name that it gets.
        replaces: a folder that has the name is removed; otherwise it stays, and the staged one
            is not published.
    """
    for file in folder.iterdir():
        sync(file)
    sync(folder)
    final.parent.mkdir(parents=True, exist_ok=True)
    earlier = folder.with_name(f"earlier-{folder.name}")
    if replaces and final.exists():
        replace(final, earlier)
    try:
        replace(folder, final)
    except OSError:
        if not final.is_dir():
            raise
    sync(final.parent)
    shutil.rmtree(earlier, ignore_errors=True)


@contextmanager
def writing(what: str) -> Iterator[None]:
    """Turn an error of the system into one line that names what is written.

    Raises:
        NoRoom: the disk is full, also where a library reports it by an error of its own.
        RunFolderError: the system refuses to write for another reason.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, FlatguardError) and not isinstance(error, NoRoom):
            raise
        why = no_room(error)
        if why is not None:
            raise NoRoom(f"cannot write {what}: {why}") from error
        if not isinstance(error, OSError):
            raise
        raise RunFolderError(f"cannot write {what}: {error}") from error


def drop_if_empty(folder: Path) -> None:
    """Remove a folder without files."""
    with suppress(OSError):
        folder.rmdir()
