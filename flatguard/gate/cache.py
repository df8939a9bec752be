"""Runs kept by their content, so that what has not changed is not attacked again.

    CACHE/KEY/run/         a run folder
    CACHE/KEY/entry.json   what the key is made of; who filled it; the error if it ended in one
    CACHE/KEY.lock         held while it is filled: one process attacks, the others wait

A run that is whole is good for everybody whose model still does what it did. One that ended early,
or in an error, is good for the processes of the same session only, and for those that may spend no
more: they share one attack, and the next session tries again.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock
from pydantic import BaseModel, ConfigDict

from flatguard.checks.evidence import Evidence
from flatguard.errors import BudgetSpent, EnvironmentProblem, FlatguardError, RunFolderError
from flatguard.request import NO_LIMITS, Limits
from flatguard.runs.json_files import read_json, write_text
from flatguard.runs.run import Run, load_run

RUN, ENTRY = "run", "entry.json"


class _Failure(BaseModel):
    """An error that all processes of a session share."""

    model_config = ConfigDict(extra="forbid")

    message: str
    budget: bool


class _Entry(BaseModel):
    """Who filled an entry, and with what."""

    model_config = ConfigDict(extra="forbid")

    session: str
    content: dict[str, Any]
    limits: Limits = NO_LIMITS
    failure: _Failure | None = None


@dataclass(frozen=True)
class Fetched:
    """A run, and whether somebody had attacked already."""

    run: Run
    cached: bool
    why: str | None = None
    """Why a run that was kept was not taken."""


def _within(asked: Limits, spent: Limits) -> bool:
    """Whether who may spend so much would have come no further than another one did."""
    pairs = (
        (asked.max_forwards, spent.max_forwards), (asked.max_minutes, spent.max_minutes),
    )  # fmt: skip
    return all(had is None or (most is not None and most <= had) for most, had in pairs)


class RunCache:
    """A folder of runs by content.

    Args:
        folder: is made where it is missing.
        session: of processes that share what ended early: an xdist run's id.
        fresh: attack again what another session attacked.
    """

    def __init__(self, folder: Path, session: str, *, fresh: bool = False):
        self._folder, self._session, self._fresh = folder, session, fresh

    def fetch(
        self,
        key: str,
        content: dict[str, Any],
        attack: Callable[[Path], Run],
        *,
        unlike: Callable[[Run], str | None] = lambda run: None,
        limits: Limits = NO_LIMITS,
    ) -> Fetched:
        """The run of this key; `attack` makes it, in a folder that it is given, if there is none.

        Args:
            key: of the content.
            content: is kept for a person to read.
            attack: makes a run in a folder that it is given.
            unlike: says why a kept run does not fit any more.
            limits: what `attack` may spend.

        Raises:
            FlatguardError: whatever `attack` raises, in this process or another of the session.
        """
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise EnvironmentProblem(
                f"cannot write {self._folder}: {error.strerror}; name another folder with "
                "--flatguard-cache"
            ) from error
        # The lock is the system's own: it is let go when its holder dies.
        with FileLock(self._folder / f"{key}.lock"):
            found = self._kept(key, limits)
            why = None if found is None else unlike(found)
            if found is not None and why is None:
                return Fetched(found, cached=True)
            return Fetched(self._filled(key, content, attack, limits), cached=False, why=why)

    def _kept(self, key: str, limits: Limits) -> Run | None:
        place = self._folder / key
        if not (place / ENTRY).is_file():
            return None  # nothing, or left by a process that died
        try:
            entry: _Entry = read_json(_Entry, place / ENTRY)
            ours = entry.session == self._session
            shared = ours and _within(limits, entry.limits)
            if self._fresh and not ours:
                return None
            if entry.failure is not None:
                if shared:
                    kind = BudgetSpent if entry.failure.budget else FlatguardError
                    raise kind(entry.failure.message)
                return None
            run = load_run(place / RUN)
            run.verify()
            evidence = Evidence.of(run)
        except RunFolderError:
            return None  # damaged
        return run if shared or (evidence.complete and evidence.stopped is None) else None

    def _filled(
        self,
        key: str,
        content: dict[str, Any],
        attack: Callable[[Path], Run],
        limits: Limits,
    ) -> Run:
        place = self._folder / key
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        entry = _Entry(session=self._session, content=content, limits=limits)
        try:
            run = attack(place / RUN)
        except FlatguardError as error:
            failure = _Failure(message=str(error), budget=isinstance(error, BudgetSpent))
            self._write(place, entry.model_copy(update={"failure": failure}))
            raise
        self._write(place, entry)
        return run

    @staticmethod
    def _write(place: Path, entry: _Entry) -> None:
        write_text(place / ENTRY, entry.model_dump_json(indent=2))
