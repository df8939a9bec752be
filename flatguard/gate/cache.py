"""Runs kept by their identity, so that what has not changed is not attacked again.

    CACHE/KEY/run/         a run folder
    CACHE/KEY/entry.json   the identity, its session, the model's fingerprint; an error if it failed
    CACHE/KEY.lock         held while the entry is filled: one process attacks, the others wait

A kept run is used if it is complete and the model answers on its images as it did. A run that ended
early, or an error, is shared by the processes of one session only, where they have the same limits:
they attack once, and the next session tries again.
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
from flatguard.execution.context import EvaluationContext
from flatguard.gate.identity import fingerprint, identity_of
from flatguard.request import Limits
from flatguard.runs.facts import digest
from flatguard.runs.json_files import read_json, write_text
from flatguard.runs.run import Run, load_run

_RUN, _ENTRY = "run", "entry.json"


class _Entry(BaseModel):
    """What is kept beside a run; one of `fingerprint` and `error` is None."""

    model_config = ConfigDict(extra="forbid")

    session: str
    identity: dict[str, Any]
    limits: Limits
    fingerprint: str | None = None
    error: str | None = None
    budget_spent: bool = False

    def raise_error(self) -> None:
        """Raise the error that the attack ended in, if it did."""
        if self.error is not None:
            raise (BudgetSpent if self.budget_spent else FlatguardError)(self.error)


@dataclass(frozen=True)
class Fetched:
    """A run from the cache.

    Attributes:
        run: the run folder; it is in the cache.
        cached: whether it had been attacked before.
        why: the reason if a kept run was not used.
    """

    run: Run
    cached: bool
    why: str | None = None


class RunCache:
    """A folder of runs by identity.

    Args:
        folder: is made where it is missing.
        session: the processes of a session share errors and runs that ended early; the id of an
            xdist run.
        fresh: attack again what another session attacked.
    """

    def __init__(self, folder: Path, session: str, *, fresh: bool = False):
        self._folder, self._session, self._fresh = folder, session, fresh

    def fetch(self, context: EvaluationContext, attack: Callable[[Path], Run]) -> Fetched:
        """The kept run of an evaluation; `attack` makes one where there is none.

        Args:
            context: the evaluation.
            attack: makes a run in a folder that it is given.

        Raises:
            FlatguardError: raised by `attack`, in this process or another one of the session.
        """
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise EnvironmentProblem(
                f"cannot write {self._folder}: {error.strerror}; name another folder with "
                "--flatguard-cache"
            ) from error
        identity = identity_of(context)
        folder = self._folder / digest(identity)
        # The system releases the lock when the process that holds it dies.
        with FileLock(f"{folder}.lock"):
            found, why = self._kept(folder, context), None
            if found is not None:
                run, known = found
                if fingerprint(context, run) == known:
                    return Fetched(run, cached=True)
                why = "its outputs or gradients on the images of the kept run differ"
            return Fetched(self._attacked(folder, context, identity, attack), False, why)

    def _kept(self, folder: Path, context: EvaluationContext) -> tuple[Run, str] | None:
        """A kept run that may be used, and the fingerprint of its model."""
        try:
            entry = read_json(_Entry, folder / _ENTRY)  # the last file that is written
            own = entry.session == self._session
            shared = own and entry.limits == context.request.limits
            if shared:
                entry.raise_error()
            if entry.fingerprint is None or (self._fresh and not own):
                return None
            run = load_run(folder / _RUN)
            run.verify()
            evidence = Evidence.of(run)
        except RunFolderError:
            return None  # missing or damaged
        finished = evidence.complete and evidence.stopped is None
        return (run, entry.fingerprint) if shared or finished else None

    def _attacked(
        self,
        folder: Path,
        context: EvaluationContext,
        identity: dict[str, Any],
        attack: Callable[[Path], Run],
    ) -> Run:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        entry = _Entry(session=self._session, identity=identity, limits=context.request.limits)
        try:
            run = attack(folder / _RUN)
            entry.fingerprint = fingerprint(context, run)
        except FlatguardError as error:
            entry.error, entry.budget_spent = str(error), isinstance(error, BudgetSpent)
            raise
        finally:
            if entry.fingerprint is not None or entry.error is not None:
                write_text(folder / _ENTRY, entry.model_dump_json(indent=2))
        return run
